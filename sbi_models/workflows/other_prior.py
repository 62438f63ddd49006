"""Posterior draws under another prior than that of the simulations, without another training.

The posterior under a prior p' is proportional to the one under p times p'(theta) / p(theta): draws are
weighted by the ratio of the priors, the weights are Pareto-smoothed (A. Vehtari et al., Pareto smoothed
importance sampling, JMLR 25(72), 2024), and draws are taken again in proportion to them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.distributions import Distribution

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, data_sets_in_words, distrust, suggest
from sbi_models.simulators.priors import TorchPrior
from sbi_models.types import FloatArray, Variables
from sbi_models.workflows.importance_weights import torch_log_prior
from sbi_models.workflows.resampling import FEWEST_EFFECTIVE, LARGEST_K, DrawsReport, resampled

PriorLike = Distribution | Mapping[str, Distribution]
"""Prior as users pass it: a torch distribution, or one for each parameter."""

_PROPOSALS_PER_DRAW, _FEWEST_PROPOSALS = 10, 1_000
_DRAWS_OF_PRIOR = 10_000


@dataclass(frozen=True, kw_only=True)
class PriorReport(DrawsReport):
    """Report on the draws of one data set under another prior.

    Attributes:
        effective_draws: number of independent draws that they are worth, by their smoothed weights.
        pareto_k: shape of the tail of the weights: below 0.5 all is well, above 0.7 nothing is.
        warnings: reasons for doubt, in words.
    """

    pareto_k: float


def given_priors(prior: PriorLike | None, names: Sequence[str]) -> dict[str, Distribution]:
    """Distributions by parameter, of a prior as users pass it.

    Raises:
        ConfigurationError: for what is no torch distribution of a parameter.
    """
    if isinstance(prior, Distribution):
        if len(names) != 1:
            raise ConfigurationError(
                f"Expected prior as a dict of torch distributions, one for each of {list(names)}, got one "
                "distribution."
            )
        prior = {names[0]: prior}
    if not (prior is None or isinstance(prior, Mapping)):
        raise ConfigurationError(
            f"Expected prior as a torch distribution, or a dict of them by parameter, got {prior!r}."
        )
    for name, one in (prior or {}).items():
        if name not in names or not isinstance(one, Distribution):
            raise ConfigurationError(
                f"Expected prior as torch distributions of parameters, got {one!r} for {name!r}. "
                f"{suggest(str(name), names)}"
            )
    return dict(prior or {})


class PriorRatio:
    """Ratio of another prior to that of the simulations.

    Args:
        prior: the other prior, of some parameters; others keep theirs.
        known: priors of the simulations by parameter, as far as they are torch distributions.
        shapes: shape of each parameter, by name.

    Raises:
        ConfigurationError: if the prior does not fit, if that of the simulations has no known density, or if
            the other one reaches beyond it.
    """

    def __init__(
        self,
        prior: PriorLike,
        known: Mapping[str, Distribution],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.shapes = shapes
        self.new = given_priors(prior, list(shapes))
        for name, one in self.new.items():
            if name not in known:
                raise ConfigurationError(
                    f"Expected simulations whose prior of {name!r} has a density, to weight by the ratio of "
                    "both priors, got a function that draws it. Make the simulator with a torch "
                    f"distribution of {name!r}, or pass prior= to the workflow."
                )
            self._check(name, one, known[name])
        self.old = {name: known[name] for name in self.new}
        self._check_reach()

    def _check(self, name: str, new: Distribution, old: Distribution) -> None:
        size, own = (new.batch_shape + new.event_shape).numel(), int(np.prod(self.shapes[name]))
        if size != own:
            raise ConfigurationError(
                f"Expected a prior of {name!r} with {own} components, as in the simulations, got shape "
                f"{tuple(new.batch_shape + new.event_shape)}. Use for instance "
                f"torch.distributions.Normal(0.0, 1.0).expand(({own},))."
            )
        supports: list[Any] = [new.support, old.support]
        kinds = [bool(support.is_discrete) for support in supports]
        if kinds[0] != kinds[1]:
            words = ["discrete" if is_discrete else "continuous" for is_discrete in kinds]
            raise ConfigurationError(
                f"Expected a {words[1]} prior of {name!r}, as in the simulations, got a {words[0]} one."
            )

    def _check_reach(self) -> None:
        drawn = TorchPrior(self.new)(seeding.generator(0, "reach of a prior"), (_DRAWS_OF_PRIOR,))
        for name, value in drawn.items():
            rows = np.asarray(value, dtype=float).reshape(_DRAWS_OF_PRIOR, *self.shapes[name])
            beyond = np.isneginf(torch_log_prior({name: self.old[name]})(**{name: rows})).mean()
            if beyond > 0:
                raise ConfigurationError(
                    f"Expected a prior within the support of that of the simulations, got one of {name!r} of "
                    f"which {beyond:.2%} lies outside, where the approximator has seen nothing. Train on "
                    "simulations of a wider prior, or cut the new one to the old support."
                )

    def __call__(self, draws: Variables) -> FloatArray:
        """Log ratio (n, S) of the densities at draws, name to (n, S, width), raw space, in nats."""
        n, number = next(iter(draws.values())).shape[:2]
        rows = {name: draws[name].reshape(n * number, *self.shapes[name]) for name in self.new}
        new, old = torch_log_prior(self.new)(**rows), torch_log_prior(self.old)(**rows)
        ratio = np.where(
            np.isneginf(new) | np.isneginf(old), -np.inf, new - np.where(np.isfinite(old), old, 0)
        )
        return np.asarray(ratio.reshape(n, number))


def draw_under(
    ratio: PriorRatio, draw: Callable[[int, int], Variables], num_samples: int, seed: int
) -> tuple[Variables, list[PriorReport]]:
    """Draws under another prior, name to (n, num_samples, width), raw space, and reports.

    Args:
        ratio: ratio of the priors.
        draw: function of a number of draws and a seed: draws under the prior of the simulations.
        num_samples: draws for each data set.
        seed: seed of the draws.
    """
    number = max(_PROPOSALS_PER_DRAW * num_samples, _FEWEST_PROPOSALS)
    proposals = draw(number, seeding.derive(seed, "proposals"))
    draws, effective, pareto_k = resampled(proposals, ratio(proposals), num_samples, seed)
    reports = [_report(float(e), float(k)) for e, k in zip(effective, pareto_k, strict=True)]
    doubtful = [k for k, report in enumerate(reports) if not report.is_reliable]
    if doubtful:
        distrust(
            f"Posterior draws of {data_sets_in_words(doubtful, len(reports))} under another prior should not "
            f"be trusted. {' '.join(reports[doubtful[0]].warnings)}"
        )
    return draws, reports


def _report(effective: float, pareto_k: float) -> PriorReport:
    doubts, cure = [], "Train on simulations of that prior, or use LikelihoodWorkflow, which takes any prior."
    if pareto_k > LARGEST_K:
        doubts.append(
            f"The ratio of the priors has too heavy a tail among them (k = {pareto_k:.2f}, {LARGEST_K} at "
            f"most). {cure}"
        )
    if effective < FEWEST_EFFECTIVE:
        doubts.append(f"They are worth {effective:.0f} independent draws only. {cure}")
    return PriorReport(effective_draws=effective, pareto_k=pareto_k, warnings=tuple(doubts))
