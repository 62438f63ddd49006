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
from dataclasses import dataclass, replace

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.certificate import LARGEST_WEIGHT
from sbi_models.approximators.validation import as_variables
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.diagnostics import effective_sample_share, largest_weight_share
from sbi_models.errors import ConfigurationError, data_sets_in_words, distrust
from sbi_models.simulators import Simulator
from sbi_models.types import FloatArray, Variables, VariablesLike
from sbi_models.workflows.importance_weights import (
    LearnedLikelihood,
    LogDensity,
    log_joint_of,
    weighted_draws,
)
from sbi_models.workflows.resampling import (
    FEWEST_EFFECTIVE,
    LARGEST_K,
    DrawsReport,
    log_mean_weight,
    resampled,
)


@dataclass(frozen=True, kw_only=True)
class ResamplingReport(DrawsReport):
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
    raw_effective_draws: float
    largest_weight: float
    pareto_k: float
    log_evidence: float


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
        log_likelihood: LogDensity | LearnedLikelihood | None = None,
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
                an object with `log_joint(theta, x)`. A trained `LikelihoodWorkflow` of the same parameters
                stands for one that nobody can compute.
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
                "densities in nats; or a trained LikelihoodWorkflow as log_likelihood=."
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
        again = resampled(proposals, log_weights, num_samples, seed)
        raw, largest = raw_shares(log_weights)
        evidence = log_mean_weight(log_weights)
        reports = []
        for i in range(len(log_weights)):
            report = ResamplingReport(
                num_proposals=number,
                effective_draws=float(again.effective[i]),
                raw_effective_draws=float(raw[i]) * number,
                largest_weight=float(largest[i]),
                pareto_k=float(again.pareto_k[i]),
                log_evidence=float(evidence[i]),
            )
            reports.append(replace(report, warnings=tuple(_doubts(report))))
            if not reports[-1].is_reliable:
                distrust(
                    f"Draws of {data_sets_in_words([i], len(log_weights))}: {' '.join(reports[-1].warnings)}"
                )
        return again.draws, reports


def raw_shares(log_weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Effective share of draws and largest share of one, by raw weights (num_datasets, num_samples)."""
    return effective_sample_share(log_weights), largest_weight_share(log_weights)


def _doubts(report: ResamplingReport) -> list[str]:
    effective, raw = report.effective_draws, report.raw_effective_draws
    doubts = []
    if report.pareto_k > LARGEST_K:
        doubts.append(
            f"The weights have too heavy a tail (k = {report.pareto_k:.2f}, {LARGEST_K} at most): the "
            "approximator misses a part of the exact posterior, and so do these draws. Train it on more "
            "simulations like this observation."
        )
    if effective < FEWEST_EFFECTIVE:
        doubts.append(
            f"They are worth {effective:.0f} draws only. Take more num_proposals, or train further."
        )
    elif raw < FEWEST_EFFECTIVE or report.largest_weight > LARGEST_WEIGHT:
        doubts.append(
            f"One of {report.num_proposals} draws has {report.largest_weight:.1%} of the weight: they are "
            f"worth {raw:.0f} draws before the weights are smoothed, and {effective:.0f} after. The "
            "approximator may miss a part of the exact posterior, which these draws then miss, too. Take "
            "more num_proposals, or train it on more simulations like this observation."
        )
    return doubts
