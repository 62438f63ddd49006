"""Importance resampling of posterior draws, where likelihood and prior can be computed.

Draws theta_s of the approximator have weights w_s = p(theta_s, x) / q(theta_s | x). Draws that are taken
again with probabilities in proportion to their Pareto-smoothed weights are those of the exact posterior, as
far as the approximator reaches: how far, the effective number of draws and the shape k of the weights' tail
say. The network proposes; what it has wrong costs draws, not correctness.

D. B. Rubin, Using the SIR algorithm to simulate posterior distributions, Bayesian Statistics 3 (1988); A.
Vehtari et al., Pareto smoothed importance sampling, JMLR 25(72) (2024); with amortized proposals: M. Dax et
al., Neural importance sampling for rapid and reliable gravitational-wave inference, Physical Review Letters
130 (2023), arXiv:2210.05686.
"""

from abc import ABC
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.certificate import LARGEST_WEIGHT
from sbi_models.approximators.validation import as_variables
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.diagnostics import effective_sample_share, largest_weight_share, pareto_smoothed
from sbi_models.errors import ConfigurationError, data_sets_in_words, distrust
from sbi_models.simulators import Simulator
from sbi_models.types import Array, FloatArray, Variables, VariablesLike
from sbi_models.workflows.importance_weights import LogDensity, log_joint_of, weighted_draws

_LARGEST_K = 0.7
"""Largest tail index of the weights; above, no finite number of draws is enough (Vehtari et al.)."""

_FEWEST_EFFECTIVE = 100


@dataclass(frozen=True)
class ResamplingReport:
    """Report on the importance resampling of the draws of one data set.

    Attributes:
        num_proposals: draws of the approximator that were weighted.
        effective_draws: number of independent draws of the exact posterior that these are worth, by their
            smoothed weights.
        raw_effective_draws: the same by the weights as they are: far fewer, if single draws have much of the
            weight.
        largest_weight: the share of the weight, as it is, of the heaviest draw.
        pareto_k: shape of the tail of the weights: below 0.5 all is well, above 0.7 nothing is.
        log_evidence: log p(x), the log of the mean weight, in nats.
        warnings: reasons for doubt, in words.
    """

    num_proposals: int
    effective_draws: float
    raw_effective_draws: float
    largest_weight: float
    pareto_k: float
    log_evidence: float
    warnings: tuple[str, ...]

    @property
    def is_reliable(self) -> bool:
        """True if there are no warnings."""
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@known_arguments
class ImportanceResamplingMixin(ABC):
    """Importance resampling of the posterior draws of a workflow by a likelihood."""

    approximator: Approximator
    simulator: Simulator | None

    def importance_sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        num_proposals: int | None = None,
        log_likelihood: LogDensity | None = None,
        log_prior: LogDensity | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> tuple[Variables, list[ResamplingReport]]:
        """Draw from the exact posterior by importance resampling, with a report for each data set.

        A draw can come several times; `effective_draws` says how many different ones they are worth. What
        cannot be relied upon is a `TrustWarning`, too.

        Args:
            num_samples: draws for each data set.
            conditions: raw variables of shape (num_datasets, ...); further ones are left aside.
            num_proposals: draws of the approximator to weight, each of which costs an evaluation of the
                likelihood; None is ten for each draw.
            log_likelihood: log p(x | theta): takes parameters and conditions by name, (S, ...) each in raw
                space, and gives (S,) in nats. None takes that of a simulator whose functions are methods of
                an object with `log_joint(theta, x)`.
            log_prior: log p(theta), the same of the parameters; not needed for priors that are torch
                distributions.
            batch_size: data sets in one call of the networks.
            seed: seed of the draws.

        Returns:
            Name to array of shape (num_datasets, num_samples, width), raw space, and the reports.

        Raises:
            ConfigurationError: if no likelihood is known, or the approximator has no density.
        """
        num_samples, seed = positive_int(num_samples, "num_samples"), seeding.resolve(seed)
        number = 10 * num_samples if num_proposals is None else positive_int(num_proposals, "num_proposals")
        if number < num_samples:
            raise ConfigurationError(
                f"Expected num_proposals of at least num_samples, {num_samples}, got {number}."
            )
        priors = {**({} if self.simulator is None else self.simulator.priors), **getattr(self, "priors", {})}
        log_joint = log_joint_of(self.approximator, self.simulator, priors, log_likelihood, log_prior)
        if log_joint is None:
            raise ConfigurationError(
                "Expected a likelihood to weight draws by, and an approximator with a density, got none. "
                "Pass log_likelihood= and log_prior=, functions of the variables by name that give log "
                "densities in nats."
            )
        observed = as_variables(
            conditions,
            self.approximator.condition_names,
            what="conditions",
            may_miss=self.approximator.may_miss,
        )
        proposals, log_weights = weighted_draws(
            self.approximator,
            observed,
            log_joint,
            num_samples=number,
            batch_size=batch_size,
            seed=seeding.derive(seed, "proposals"),
        )
        smoothed = pareto_smoothed(log_weights)
        shares, raw, largest = effective_sample_share(smoothed.log_weights), *raw_shares(log_weights)
        drawn: dict[str, list[FloatArray]] = {name: [] for name in proposals}
        reports = []
        for i, row in enumerate(smoothed.log_weights):
            chosen = positions_by_weight(row, num_samples, seeding.generator(seed, "resampling", i))
            for name, values in proposals.items():
                drawn[name].append(values[i, chosen])
            effective = float(shares[i]) * number, float(raw[i]) * number
            reports.append(_report(log_weights[i], effective, float(largest[i]), float(smoothed.pareto_k[i])))
            if not reports[-1].is_reliable:
                distrust(
                    f"Draws of {data_sets_in_words([i], len(smoothed.log_weights))}: "
                    f"{' '.join(reports[-1].warnings)}"
                )
        return {name: np.stack(values) for name, values in drawn.items()}, reports


def positions_by_weight(log_weights: FloatArray, number: int, rng: np.random.Generator) -> Array:
    """Positions of draws in proportion to their log weights, by systematic resampling, in random order."""
    weights = (
        np.exp(log_weights - log_weights.max())
        if np.isfinite(log_weights.max())
        else np.ones(len(log_weights))
    )
    levels = (np.arange(number) + rng.uniform()) / number
    positions = np.searchsorted(np.cumsum(weights) / weights.sum(), levels)
    return rng.permutation(np.minimum(positions, len(weights) - 1))


def raw_shares(log_weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Effective share of draws and largest share of one, by raw weights (num_datasets, num_samples)."""
    return effective_sample_share(log_weights), largest_weight_share(log_weights)


def _report(
    log_weights: FloatArray, both: tuple[float, float], largest: float, pareto_k: float
) -> ResamplingReport:
    effective, raw = both
    top = float(log_weights.max())
    evidence = top + float(np.log(np.exp(log_weights - top).mean())) if np.isfinite(top) else -np.inf
    doubts = []
    if pareto_k > _LARGEST_K:
        doubts.append(
            f"The weights have too heavy a tail (k = {pareto_k:.2f}, {_LARGEST_K} at most): the "
            "approximator misses a part of the exact posterior, and so do these draws. Train it on more "
            "simulations like this observation."
        )
    if effective < _FEWEST_EFFECTIVE:
        doubts.append(
            f"They are worth {effective:.0f} draws only. Take more num_proposals, or train further."
        )
    elif raw < _FEWEST_EFFECTIVE or largest > LARGEST_WEIGHT:
        doubts.append(
            f"One of {len(log_weights)} draws has {largest:.1%} of the weight: they are worth {raw:.0f} "
            f"draws before the weights are smoothed, and {effective:.0f} after. The approximator may miss a "
            "part of the exact posterior, which these draws then miss, too. Take more num_proposals, or "
            "train it on more simulations like this observation."
        )
    return ResamplingReport(len(log_weights), effective, raw, largest, pareto_k, evidence, tuple(doubts))
