"""The default composition: scores of single items as they are for few items, a quasi-likelihood that fresh
simulations calibrate for many.

What items share of errors adds up with their number. Few items are composed as the network has them, and
posterior simulation-based calibration tests the draws; where it rejects them, and for many items, a
quasi-likelihood is learned near the posterior (see `quasi_likelihood.py`) and tested in its turn. Without a
simulator there is neither, and draws are wider by what is not known of the errors.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.methods import register_method
from sbi_models.approximators.composition.modes import CONVERGED, newton
from sbi_models.approximators.composition.outliers import Outlying, farthest_item
from sbi_models.approximators.composition.plan import (
    MANY_ITEMS,
    UNKNOWN,
    Moments,
    Plan,
    beyond,
    generator_of,
    in_reach,
)
from sbi_models.approximators.composition.polynomial_density import degree_for, fit_points, fitted
from sbi_models.approximators.composition.posterior_sbc import (
    LogSlopes,
    PosteriorCalibration,
    posterior_calibration,
    replicates_of,
)
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.quasi_likelihood import (
    LINE,
    QuasiLikelihood,
    Region,
    learned_statistic,
)
from sbi_models.approximators.composition.report import EXPLAINED, CompositionReport
from sbi_models.approximators.composition.score import ComposedScore
from sbi_models.approximators.composition.statistics import Statistic, scores_at
from sbi_models.approximators.composition.uncalibrated import Composed, uncalibrated
from sbi_models.errors import SimulationError

FEW_ITEMS = 30
"""Below so many items, scores are used as they are unless a test rejects them."""

_FIRST_DRAWS, _DRAWS = 600, 2000
"""Draws, at least, that tests are made with, and that moments of a calibrated posterior are taken from."""

_REJECTED = 0.02
"""P-value of the test below which few items are calibrated, too."""

_STUCK = 0.05
"""Share of accepted steps below which draws are not those of any density."""

_SMOOTH = 5
"""From so many items on, composed scores that no polynomial fits are those of a weak network, and not of a
bent posterior."""

_PASSES = 6
"""Regions that are tried until one lies where its posterior is."""

_FIRST = (4000, 50)
"""Simulations of a region that is tried, at least, and an item."""

_FIRST_WIDTH = 1.5
"""Covariance of the first region, in that of the uncalibrated draws."""

_MOVED, _GREW, _SHRANK = 0.7, 1.3, 0.4
"""By how many sds of a region, and how many times in width, a posterior may differ from where the region was
laid."""

_FINE = 2001
_DEAD = -5.0
"""Nats below the top at which a density must have arrived at the ends of a region."""

_LOST = (
    "The network's scores of these items together are not those of a posterior: they lead to where the "
    "prior does not reach, and nothing mended that. The draws are those of the prior. Train longer, or "
    "look at the items one by one."
)

_UNSETTLED = (
    "The calibration by fresh simulations did not settle: each one moved the posterior out of where the "
    "last one was made. The draws are those of the network's scores as they are."
)


@register_method("calibrated", simulates=True)
def calibrated(
    items: Items, prior: PriorScore, moments: Moments, num_samples: int, plan: Plan, *, fresh: Fresh | None
) -> tuple[Tensor, CompositionReport]:
    """Draws (num_samples, d) of the posterior given all items, standardized space, and what to think of them.

    Args:
        items: one or more.
        prior: score of the prior.
        moments: its mean (d,) and covariance (d, d).
        num_samples: draws.
        plan: noise, simulations, seed.
        fresh: simulates items; None composes without calibration.
    """
    composed = ComposedScore(items, prior, plan.noise, plan.learned)
    if fresh is None:
        first, _ = _within_reach(
            uncalibrated(composed, moments, num_samples, plan, None), moments, plan, alone=True
        )
        unknown = (UNKNOWN,) if plan.learned is None and len(items) > MANY_ITEMS else ()
        return _widened(first, plan), replace(first.report, notes=(*first.report.notes, *unknown))
    number = max(num_samples, _FIRST_DRAWS)
    try:
        first = uncalibrated(composed, moments, number, plan, fresh)
        draws, report = _with_simulator(first, _Given(composed, moments, plan, fresh))
        return draws[:num_samples], report
    except SimulationError as error:
        first, _ = _within_reach(
            uncalibrated(composed, moments, num_samples, plan, None), moments, plan, alone=True
        )
        note = (
            "The simulator failed near the composed posterior, so that nothing is calibrated or "
            f"tested: {error}"
        )
        return first.draws, replace(first.report, notes=(*first.report.notes, note))


@dataclass(frozen=True)
class _Given:
    """What a composition with a simulator starts from."""

    composed: ComposedScore
    moments: Moments
    plan: Plan
    fresh: Fresh

    @property
    def num_items(self) -> int:
        """n."""
        return len(self.composed.items)


def _with_simulator(first: Composed, given: _Given) -> tuple[Tensor, CompositionReport]:
    """As many draws as there are uncalibrated ones, and the report."""
    plan = given.plan
    first, lost = _within_reach(first, given.moments, plan)
    draws, report = first.draws, first.report
    rough = plan.is_weak or (report.explained < EXPLAINED and given.num_items >= _SMOOTH)
    if given.num_items < FEW_ITEMS and not report.notes:
        report = _tested_scores(first, given)
        if not (report.sbc_p_value < _REJECTED or rough):
            return draws, report
    parts = []
    for mode in range(int(first.modes.max()) + 1):
        own = first.modes == mode
        if int(own.sum()) > draws.shape[1] + 1:
            part = _Calibration(given, draws[own], first.unknown, mode, is_prior=lost)
            if part.likelihood is None:
                told = lost or (
                    math.isfinite(report.sbc_p_value) and not rough
                )  # the test says whether the draws will do
                return first.draws, report if told else replace(report, notes=(*report.notes, _UNSETTLED))
            draws = draws.clone()
            draws[own] = part.draws(int(own.sum()), generator_of(plan.seed, "calibrated draws", mode))
            parts.append((int(own.sum()), mode, part))
    if not parts:
        return draws, report
    _, mode, main = max(parts, key=lambda part: part[0])
    assert main.likelihood is not None
    own = first.modes == mode
    test = posterior_calibration(draws[own], *_replicates(main.likelihood, given))
    before, after = first.draws[own], draws[own]
    moved = torch.linalg.solve_triangular(
        torch.linalg.cholesky(_covariance(after)),
        (after.mean(dim=0) - before.mean(dim=0))[:, None],
        upper=False,
    )
    report = replace(
        _reported(report, test, main.outlying, main.influence),
        simulations=main.simulations,
        notes=(),
        bias_shift=math.inf if lost else float(moved.norm()) / math.sqrt(len(moved)),
        width_ratio=math.nan if lost else float((after.std(dim=0) / before.std(dim=0)).log().mean().exp()),
        calibration_residual=math.sqrt(
            given.num_items * main.likelihood.leverage / main.likelihood.simulations
        ),
        last_step=main.last_step,
        explained=main.explained,
        acceptance=main.acceptance,
        evaluations=report.evaluations + main.evaluations,
        calibrated=True,
    )
    return draws, report


def _within_reach(
    first: Composed, moments: Moments, plan: Plan, *, alone: bool = False
) -> tuple[Composed, bool]:
    """The draws, or those of the prior where scores lead nowhere; and whether they do.

    Without a simulator (`alone`) a heavy tail of the prior may have some draws out of reach; a calibration
    starts from none of them.
    """
    far = bool(beyond(first.draws, moments)) if alone else not bool(in_reach(first.draws, moments).all())
    if not (far or first.report.acceptance < _STUCK):
        return first, False
    noise = torch.randn(
        first.draws.shape, generator=generator_of(plan.seed, "prior draws"), dtype=first.draws.dtype
    )
    draws = moments[0] + noise @ torch.linalg.cholesky(moments[1]).mT
    report = replace(first.report, num_modes=1, mode_weights=(1.0,), notes=(*first.report.notes, _LOST))
    return Composed(draws, torch.zeros_like(first.modes), report), True


class _Calibration:
    """The quasi-posterior around one mode of the uncalibrated draws (s, d); `likelihood` is None where none
    was found."""

    likelihood: QuasiLikelihood | None = None
    outlying: Outlying
    influence = math.nan

    def __init__(
        self, given: _Given, draws: Tensor, unknown: Tensor | None, mode: int, *, is_prior: bool
    ) -> None:
        self._given, plan, items = given, given.plan, given.composed.items
        self.simulations = self.evaluations = 0
        self.last_step = self.explained = self.acceptance = math.nan
        n, mean = given.num_items, draws.mean(dim=0)
        covariance = _FIRST_WIDTH * _covariance(draws) + (0 if unknown is None else unknown)
        for number in range(_PASSES):
            items_told = 1 if is_prior and number == 0 else n  # what the width of the region is that of
            if int(torch.linalg.cholesky_ex(covariance).info):  # draws that are all alike
                self.likelihood = None
                return
            seed = seeding.derive(plan.seed, "statistic", mode, number) >> 1
            near = Region.around(mean, covariance, given.moments, items_told)
            wide = Region.around(mean, covariance, given.moments, items_told, for_statistic=True)
            statistic = learned_statistic(
                near,
                wide,
                given.fresh,
                num_items=items_told,
                noise=plan.noise,
                number=plan.simulations,
                seed=seed,
            )
            if not statistic.dim:  # all items alike
                self.likelihood = None
                return
            self._total = statistic(items).sum(dim=0)
            self.evaluations += len(statistic.points)
            few = min(plan.simulations, max(_FIRST[0], _FIRST[1] * n))
            settled = self._fit(statistic, near, items_told, few, seeding.derive(seed, "region"))
            if settled is None:
                return
            widths = (self._covariance.diagonal() / covariance.diagonal()).sqrt()
            settled = settled and float(widths.max()) < _GREW and float(widths.min()) > _SHRANK
            moved = self._mean - mean
            mean, covariance = self._mean, self._covariance + (0 if settled else moved[:, None] * moved)
            if settled:
                break
        else:
            self.likelihood = None
            return
        near = Region.around(mean, covariance, given.moments, n)
        if (
            self._fit(statistic, near, n, plan.simulations, seeding.derive(plan.seed, "calibration", mode))
            is None
        ):
            return
        assert self.likelihood is not None
        self.evaluations += len(statistic.points)
        self.simulations = self.likelihood.simulations
        self.outlying = farthest_item(self.likelihood.scatter(items, self._mean), self.likelihood.residuals)
        _, factor = self.likelihood.slopes(self._mean[None])
        sd = self.likelihood.sd(self._mean[None])[0]
        pull = factor[0].mT @ (self.outlying.away * sd)
        self.influence = math.sqrt(float(pull @ self._covariance @ pull) / len(pull))

    def score(self, theta: Tensor) -> Tensor:
        """Of the quasi-posterior (m, d) at theta (m, d)."""
        assert self.likelihood is not None
        return self._given.composed.prior(theta) + self.likelihood.score(
            theta, self._total, self._given.num_items
        )

    def draws(self, number: int, generator: torch.Generator) -> Tensor:
        """Draws (number, d) of the quasi-posterior, in random order."""
        assert self.likelihood is not None
        region = self.likelihood.region
        if len(region.center) == 1:
            places, logs = self._line
            masses = (logs - logs.max()).exp()
            levels = torch.cumulative_trapezoid(masses, places)
            levels = torch.cat([levels.new_zeros(1), levels]) / levels[-1]
            wanted = (
                torch.randperm(number, generator=generator)
                + torch.rand(number, generator=generator, dtype=torch.float64)
            ) / number
            right = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
            share = (wanted - levels[right - 1]) / (levels[right] - levels[right - 1]).clamp_min(1e-300)
            return region.theta((places[right - 1] + share * (places[right] - places[right - 1]))[:, None])
        u, self.acceptance = self._surrogate.draw(number, generator)
        return self._mode.center + u @ self._mode.factor.mT

    def _fit(
        self, statistic: Statistic, region: Region, items_told: int, number: int, seed: int
    ) -> bool | None:
        """Learn the quasi-likelihood in a region; whether its posterior lies there, or None if it has
        none."""
        d = len(region.center)
        self.likelihood = QuasiLikelihood(
            statistic, region, self._given.fresh, num_items=items_told, number=number, seed=seed >> 1
        )
        if d == 1:
            places = torch.linspace(-LINE, LINE, _FINE, dtype=torch.float64)
            slopes = self.score(region.theta(places[:, None]))[:, 0] * region.factor[0, 0]
            logs = torch.cumulative_trapezoid(slopes, places)
            self._line = places, torch.cat([logs.new_zeros(1), logs])
            logs = self._line[1] - self._line[1].max()
            inside = bool(max(logs[0], logs[-1]) < _DEAD)
        else:
            try:
                self._mode = newton(self.score, region.center, torch.cholesky_inverse(region.factor))
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # what was learned is no density
                self.likelihood = None
                return None
            degree = degree_for(d)
            points = fit_points(d, degree, torch.Generator().manual_seed(seed >> 1))
            self._surrogate = fitted(points, self._mode.whitened(self.score)(points), degree)
            self.last_step, self.explained = self._mode.last_step, self._surrogate.explained
            inside = self._mode.last_step < CONVERGED
        drawn = self.draws(_DRAWS, torch.Generator().manual_seed(seed >> 1))
        self._mean, self._covariance = drawn.mean(dim=0), _covariance(drawn)
        moved = float(region.u(self._mean[None]).norm()) / math.sqrt(d)
        return inside and moved < _MOVED


def _covariance(draws: Tensor) -> Tensor:
    covariance: Tensor = torch.cov(draws.mT).reshape(draws.shape[1], draws.shape[1])
    return covariance


def _widened(first: Composed, plan: Plan) -> Tensor:
    """Draws without a simulator, wider by what is not known of the errors that all items share."""
    if first.unknown is None or first.report.notes:
        return first.draws
    values, axes = torch.linalg.eigh(first.unknown)
    noise = torch.randn(
        first.draws.shape, generator=generator_of(plan.seed, "unknown errors"), dtype=first.draws.dtype
    )
    drawn: Tensor = first.draws + noise @ (axes * values.clamp_min(0).sqrt()).mT
    return drawn


def _reported(
    report: CompositionReport, test: PosteriorCalibration, outlying: Outlying, influence: float
) -> CompositionReport:
    return replace(
        report,
        sbc_p_value=test.p_value,
        sbc_shift=test.shift,
        sbc_variance=test.variance,
        contradiction=outlying.p_value,
        least_typical=outlying.item,
        influence=influence,
    )


def _tested_scores(first: Composed, given: _Given) -> CompositionReport:
    """The report on scores as they are, with the test of the draws of the likeliest mode, and of the
    items."""
    composed, n, noise = given.composed, given.num_items, given.composed.noise
    draws = first.draws[first.modes == int(first.modes.mode().values)]
    number = replicates_of(n)
    mean, covariance = draws.mean(dim=0)[None], _covariance(draws)
    scattered: list[Tensor] = []

    def log_slopes(theta: Tensor, points: Tensor) -> Tensor:
        slopes = torch.zeros(number, *points.shape, dtype=torch.float64)
        center = composed.center(points)
        for rows, simulated in given.fresh(
            theta.repeat_interleave(n, dim=0), seeding.derive(given.plan.seed, "replicates")
        ):
            slopes.index_add_(0, rows // n, scores_at(simulated, points, noise) - center)
            scattered.append(scores_at(simulated, mean, noise)[:, 0])
        return slopes

    test = posterior_calibration(draws, number, log_slopes)
    outlying = farthest_item(scores_at(composed.items, mean, noise)[:, 0], torch.cat(scattered))
    influence = math.sqrt(float(outlying.away @ covariance @ outlying.away) / len(outlying.away))
    found = replace(_reported(first.report, test, outlying, influence), simulations=number * n)
    return (
        found
        if test.p_value < _REJECTED
        else replace(found, bias_shift=math.nan, calibration_residual=math.nan)
    )  # nothing to correct


def _replicates(likelihood: QuasiLikelihood, given: _Given) -> tuple[int, LogSlopes]:
    """How many data sets test a quasi-posterior, and the slopes of their likelihoods."""
    n = given.num_items
    number = replicates_of(n)

    def log_slopes(theta: Tensor, points: Tensor) -> Tensor:
        totals = torch.zeros(number, likelihood.statistic.dim, dtype=torch.float64)
        counts = torch.zeros(number, dtype=torch.float64)
        for rows, simulated in given.fresh(
            theta.repeat_interleave(n, dim=0), seeding.derive(given.plan.seed, "replicates")
        ):
            totals.index_add_(0, rows // n, likelihood.statistic(simulated))
            counts.index_add_(0, rows // n, torch.ones(len(rows), dtype=torch.float64))
        mean, factor = likelihood.slopes(points)
        return torch.einsum("mqj,kmq->kmj", factor, totals[:, None] - counts[:, None, None] * mean)

    return number, log_slopes
