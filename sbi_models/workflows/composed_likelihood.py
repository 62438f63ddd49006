"""Composition beside a learned likelihood: the posterior given all items from both, and which one is right.

A composition adds up scores of single posteriors, which a network extrapolates for an item far in their tail.
A likelihood of single elements is evaluated where the item is typical of its parameters, and adds up as well.
Draws of its posterior are tested by data sets simulated at them (posterior simulation-based calibration, with
the learned likelihood of all items at every draw, so that posteriors of any shape can be tested).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from sbi_models import seeding
from sbi_models.approximators import CompositionalApproximator
from sbi_models.approximators.composition.items import ROWS_AT_A_TIME
from sbi_models.approximators.composition.posterior_sbc import (
    PosteriorCalibration,
    calibration_of,
    replicates_of,
)
from sbi_models.approximators.composition.prior_scores import PriorScoreLike
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition_options import Simulate, composed_conditions
from sbi_models.approximators.element_likelihood import ElementLikelihood, likelihood_members
from sbi_models.approximators.likelihood import LikelihoodApproximator
from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.types import Array, FloatArray, Variables, VariablesLike
from sbi_models.workflows.likelihood.posterior import LikelihoodPosterior
from sbi_models.workflows.likelihood.prior import Prior, resolved_prior
from sbi_models.workflows.likelihood.report import PosteriorReport

if TYPE_CHECKING:
    from sbi_models.workflows.likelihood.workflow import LikelihoodWorkflow

_TESTED_DRAWS = 400
"""Draws that data sets simulated at some of them are tested with."""

_DOUBTED = 0.01
"""P-value of that test below which the learned likelihood is doubted."""

_FEWEST_DRAWS = 8_192
"""Draws of the chains, at least: shares of modes are then within a few per cent."""

_TINY = 1e-300
_FAR, _NARROW, _LOST = 0.5, 1 / 1.5, 2.0
"""Unexplained distance of means in sds, and ratio of sds, from which both answers contradict each other; and
sds of the means that lost information explains."""


@dataclass(frozen=True)
class ComparedReport(CompositionReport):
    """Report of a composition beside a learned likelihood; what it inherits is on the composition.

    Attributes:
        likelihood: report on the draws of the likelihood's posterior.
        likelihood_p_value: p-value of posterior simulation-based calibration of these draws; NaN without a
            simulator.
        likelihood_shift: distance of these draws from right ones by that test, in posterior sds.
        likelihood_variance: variance of the normal scores of its ranks, as `sbc_variance`.
        composed_mean, composed_sd: moments of the draws of the composition, name to a list of (width,)
            numbers, raw space.
        likelihood_mean, likelihood_sd: those of the likelihood.
        difference: largest distance of both means, in sds of the likelihood's draws.
        unexplained: largest part of that which lost information does not explain: where the composition is
            wider, as if it had seen but a statistic of the items, means differ by sqrt(sd_c^2 - sd_l^2), and
            twice that is taken off.
        sd_ratio: the composition's sd over the likelihood's, of the component where they differ most.
    """

    likelihood: PosteriorReport | None = None
    likelihood_p_value: float = np.nan
    likelihood_shift: float = np.nan
    likelihood_variance: float = np.nan
    composed_mean: Mapping[str, list[float]] | None = None
    composed_sd: Mapping[str, list[float]] | None = None
    likelihood_mean: Mapping[str, list[float]] | None = None
    likelihood_sd: Mapping[str, list[float]] | None = None
    difference: float = np.nan
    unexplained: float = np.nan
    sd_ratio: float = np.nan

    @property
    def returned(self) -> Literal["likelihood", "composition"]:
        """Whose draws are returned: those of the likelihood, unless it is doubted.

        Of two doubted answers it is that of the larger p-value of its test.
        """
        if not self.likelihood_doubts:
            return "likelihood"
        if not self.composition_doubts or not self.likelihood_p_value > self.sbc_p_value:
            return "composition"
        return "likelihood"

    @property
    def likelihood_doubts(self) -> tuple[str, ...]:
        """Reasons not to trust the answer of the likelihood."""
        doubts = [] if self.likelihood is None else list(self.likelihood.warnings)
        if self.likelihood_p_value < _DOUBTED:
            doubts.append(
                "Its draws fail posterior simulation-based calibration (p = "
                f"{self.likelihood_p_value:.1g}): they are off by about {abs(self.likelihood_shift):.1f} "
                f"standard deviations, with errors {np.sqrt(self.likelihood_variance):.1f} times as large as "
                "their widths say. Train it longer."
            )
        return tuple(doubts)

    @property
    def composition_doubts(self) -> tuple[str, ...]:
        """Reasons not to trust the answer of the composition."""
        return super().warnings

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust what was returned, in plain words."""
        ours, others = self.likelihood_doubts, self.composition_doubts
        if self.returned == "composition":
            why = "The draws are those of the composition, since the learned likelihood is doubted:"
            return (" ".join([why, *ours]), *others)
        if ours:
            return (
                "The draws are those of the learned likelihood, since the composition is doubted even more.",
                *ours,
            )
        if not others and (self.unexplained > _FAR or self.sd_ratio < _NARROW):
            return (
                f"Composition and learned likelihood differ by {self.difference:.2f} standard deviations "
                f"(ratio of sds {self.sd_ratio:.2f}), and nothing speaks against either. The draws are those "
                "of the likelihood. Train both longer, and look at the items one by one.",
            )
        return ()

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON, and which answer was returned."""
        return super().as_dict() | {"returned": self.returned}


class LikelihoodOfItems:
    """Posterior of all items of each data set by a learned likelihood; all that does not fit is refused.

    Args:
        approximator: the approximator that composes.
        likelihood: trained `LikelihoodWorkflow` of the same parameters, whose data are the items.
        conditions: items, as for `compositional_sample`.
        prior: prior of the composition; a function has no density.
        known: torch priors of the simulations.

    Raises:
        ConfigurationError: for another workflow, other variables, or a prior without a density.
        DataError: for items that do not fit.
        NotFittedError: before its training.
    """

    def __init__(
        self,
        approximator: CompositionalApproximator,
        likelihood: "LikelihoodWorkflow",
        conditions: VariablesLike,
        *,
        prior: PriorScoreLike | None,
        known: Mapping[str, Distribution],
    ) -> None:
        approximator._check_built()
        first = _matching(approximator, likelihood)
        self._learned = likelihood.approximator
        shapes = {name: approximator.shapes[name] for name in approximator.condition_names}
        flat, numbers = composed_conditions(conditions, shapes, approximator.any_length)
        self.names, self.first, self.numbers = approximator.inference_names, first, numbers
        self.prior = _prior_with_density(prior, {**likelihood.priors, **known}, first)
        self.posterior = LikelihoodPosterior(
            self.prior, ElementLikelihood(self._learned, elements_of(first, flat, numbers))
        )

    def compared(
        self,
        composed: Variables,
        reports: list[CompositionReport],
        *,
        simulate: Simulate | None,
        seed: int,
    ) -> tuple[Variables, list[ComparedReport]]:
        """The better answer for each data set, name to (n, num_samples, width), raw space, and reports.

        Args:
            composed: draws of the composition.
            reports: reports on them.
            simulate: simulations for fixed parameters, for the test; None tests nothing.
            seed: seed of draws and simulations.
        """
        num_samples = len(next(iter(composed.values()))[0])
        drawn, own = self.posterior.sample(
            max(num_samples, _FEWEST_DRAWS),
            method="mcmc",
            proposal=None,
            conditions={},
            at_once=None,
            seed=seeding.derive(seed, "likelihood"),
        )
        chosen: Variables = {name: value.copy() for name, value in composed.items()}
        found = []
        for row, (report, of_likelihood) in enumerate(zip(reports, own, strict=True)):
            both = [{name: value[row] for name, value in one.items()} for one in (composed, drawn)]
            test = self._tested(both[1], row, simulate, seeding.derive(seed, "test", row))
            compared = _judged(report, of_likelihood, test, both)
            if compared.returned == "likelihood":
                for name in self.names:
                    chosen[name][row] = drawn[name][row, :num_samples]
            found.append(compared)
        return chosen, found

    def _tested(
        self, draws: Variables, row: int, simulate: Simulate | None, seed: int
    ) -> PosteriorCalibration | None:
        """Test of the draws of a data set; None without simulations."""
        if simulate is None:
            return None
        n = self.numbers[row]
        theta = {name: value[:_TESTED_DRAWS] for name, value in draws.items()}
        z = self._unbounded(theta)
        if int(torch.linalg.matrix_rank(torch.cov(z.mT).reshape(z.shape[1], z.shape[1]))) < z.shape[1]:
            return None  # chains that do not move: their report says so
        wanted, parts, kept = replicates_of(n), [], []
        step = max(1, ROWS_AT_A_TIME // n)
        for start in range(0, wanted, step):
            rows = np.arange(start, min(start + step, wanted))
            owner = np.repeat(rows, n)
            try:
                simulated, good = simulate(
                    {name: value[owner] for name, value in theta.items()}, seeding.derive(seed, start)
                )
            except SimulationError:
                continue
            there, counts = np.unique(owner[good], return_counts=True)
            names = (*self.first.inference_names, *self.first.element_conditions)
            items = {name: simulated[name] for name in names}
            parts.append(self._log_likelihoods(elements_of(self.first, items, counts.tolist()), theta))
            kept.append(there)
        if not parts or sum(map(len, kept)) < z.shape[1] + 2:
            return None
        order = np.concatenate([np.concatenate(kept), np.setdiff1d(np.arange(len(z)), np.concatenate(kept))])
        return calibration_of(torch.cat(parts)[:, order], z[order])

    def _log_likelihoods(self, data: VariablesLike, theta: Variables) -> Tensor:
        """Log likelihoods (k, s) of k simulated data sets at every parameter (s, width)."""
        likelihood = ElementLikelihood(self._learned, data)
        k, s = likelihood.number, len(next(iter(theta.values())))
        given = {name: torch.as_tensor(value).repeat(k, 1) for name, value in theta.items()}
        with torch.no_grad():
            return likelihood(given, torch.arange(k).repeat_interleave(s)).reshape(k, s)

    def _unbounded(self, theta: Variables) -> Tensor:
        """Parameters (s, d) in unbounded space; what rounding has put on a bound is where the farthest is."""
        raw = {name: torch.as_tensor(value) for name, value in theta.items()}
        z = self.prior.adapter.forward(raw)["inference_variables"]
        finite = torch.where(z.isfinite(), z, torch.nan)
        low, high = (
            finite.nan_to_num(nan=torch.inf).amin(dim=0),
            finite.nan_to_num(nan=-torch.inf).amax(dim=0),
        )
        return torch.minimum(torch.maximum(z.nan_to_num(nan=0.0), low), high)


def elements_of(first: LikelihoodApproximator, items: Variables, numbers: list[int]) -> Variables:
    """Elements of each data set, as a likelihood takes them: name to a list of arrays (N, width), raw space.

    Args:
        first: the likelihood.
        items: name to all items in order, (total, width) or sets (total, N, width), also of other N each.
        numbers: items of each data set.
    """
    counts: Array = np.array([_num_elements(item) for item in items[first.inference_names[0]]])
    ends = np.cumsum([0, *numbers])
    found: Any = {}
    for name in (*first.inference_names, *first.element_conditions):
        rows = [
            item if np.ndim(item) > 1 else np.repeat(np.asarray(item).reshape(1, -1), count, axis=0)
            for item, count in zip(items[name], counts, strict=True)
        ]
        found[name] = [np.concatenate(rows[start:stop]) for start, stop in pairwise(ends)]
    return dict(found)


def _num_elements(item: Array) -> int:
    return len(item) if np.ndim(item) > 1 else 1


def _matching(
    approximator: CompositionalApproximator, likelihood: "LikelihoodWorkflow"
) -> LikelihoodApproximator:
    """The first network of a likelihood of items, whose variables are those of the composition."""
    learned = getattr(likelihood, "approximator", None)
    if learned is None or not all(
        isinstance(one, LikelihoodApproximator) for one in learned.members.values()
    ):
        raise ConfigurationError(
            f"Expected likelihood as a trained LikelihoodWorkflow, got {type(likelihood).__name__}."
        )
    learned._check_built()
    first = likelihood_members(learned)[0][1]
    if first.iid is None:
        raise ConfigurationError(
            'Expected a likelihood of single elements, iid="elements", or of sets, iid="sets", whose product '
            "is that of all items, got iid=None. Train it with one of these."
        )
    names = {
        "parameters": (approximator.inference_names, first.parameter_names),
        "observables and conditions": (
            approximator.condition_names,
            (*first.inference_names, *first.element_conditions),
        ),
    }
    for what, (ours, others) in names.items():
        if set(ours) != set(others):
            raise ConfigurationError(
                f"Expected a likelihood with the {what} of the composition, {', '.join(map(repr, ours))}, "
                f"got {', '.join(map(repr, others))}."
            )
        for name in ours:
            shape, other = approximator.shapes[name], first.shapes[name]
            if shape[-1:] != other[-1:] or len(shape) > 2:
                raise ConfigurationError(
                    f"Expected {name!r} of the likelihood as single elements of the composition's items "
                    f"(shape {shape}), got shape {other}."
                )
    return first


def _prior_with_density(
    prior: PriorScoreLike | None, known: Mapping[str, Distribution], first: LikelihoodApproximator
) -> Prior:
    given = prior if isinstance(prior, Distribution | Mapping) else None
    missing = [name for name in first.parameter_names if name not in known]
    if given is None and missing:
        raise ConfigurationError(
            f"Expected the density of the prior for likelihood=, got none for {missing[0]!r}: a function has "
            "none. Pass LikelihoodWorkflow(prior=torch.distributions...), or make the simulator with torch "
            "distributions."
        )
    widths = {name: first.shapes[name][0] for name in first.parameter_names}
    return resolved_prior(given, known, first.parameter_names, widths)


def _judged(
    report: CompositionReport,
    of_likelihood: PosteriorReport,
    test: PosteriorCalibration | None,
    both: list[Variables],
) -> ComparedReport:
    """The report on both answers, `both`: the draws of the composition, and those of the likelihood."""
    means, sds = (
        [{n: getattr(v, f)(axis=0) for n, v in one.items()} for one in both] for f in ("mean", "std")
    )
    scale = {n: np.maximum(sds[1][n], _TINY) for n in both[1]}
    ratios = np.concatenate([np.maximum(sds[0][n], _TINY) / scale[n] for n in scale])
    distances = np.concatenate([np.abs(means[0][n] - means[1][n]) / scale[n] for n in scale])
    lost = _LOST * np.sqrt(np.maximum(ratios**2 - 1, 0))
    test = test or PosteriorCalibration(*[np.nan] * 4)
    return ComparedReport(
        **{field.name: getattr(report, field.name) for field in fields(report)},
        likelihood=of_likelihood,
        composed_mean=_listed(means[0]),
        composed_sd=_listed(sds[0]),
        likelihood_mean=_listed(means[1]),
        likelihood_sd=_listed(sds[1]),
        difference=float(distances.max()),
        unexplained=float(np.maximum(distances - lost, 0).max()),
        sd_ratio=float(ratios[np.abs(np.log(ratios)).argmax()]),
        likelihood_p_value=test.p_value,
        likelihood_shift=test.shift,
        likelihood_variance=test.variance,
    )


def _listed(moments: Mapping[str, FloatArray]) -> dict[str, list[float]]:
    return {name: [float(value) for value in values] for name, values in moments.items()}
