"""Calibrated composition: network scores for few items, a simulation-calibrated quasi-likelihood for many.

What items share of errors adds up with their number. Few items are composed as the network has them, and
posterior simulation-based calibration tests the draws; where it rejects them, and for many items, a
quasi-likelihood is learned near the posterior (see `quasi_likelihood.py`) and tested in its turn. Without a
simulator there is neither, and draws are wider by what is not known of the errors.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.checks import Outlier, farthest_item
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.methods import register_method
from sbi_models.approximators.composition.mode_calibration import (
    ModeCalibration,
    SimulatedItems,
    covariance_of,
)
from sbi_models.approximators.composition.plan import (
    MANY_ITEMS,
    UNKNOWN_SHARED_ERROR,
    Moments,
    Plan,
    generator_of,
    in_reach,
    out_of_reach_notes,
)
from sbi_models.approximators.composition.posterior_sbc import (
    LogSlopes,
    PosteriorCalibration,
    posterior_calibration,
    replicates_of,
)
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.quasi_likelihood import (
    QuasiLikelihood,
    scores_at,
)
from sbi_models.approximators.composition.report import EXPLAINED, CompositionReport
from sbi_models.approximators.composition.score import ComposedScore
from sbi_models.approximators.composition.uncalibrated import Composed, uncalibrated
from sbi_models.errors import SimulationError

FEW_ITEMS = 30
"""Below so many items, scores are used as they are unless a test rejects them."""

_FEWEST_DRAWS = 600
"""Number of draws, at least, that a test is made with."""

_REJECTED = 0.02
"""P-value of the test below which few items are calibrated, too."""

_STUCK = 0.05
"""Share of accepted steps below which draws are not those of any density."""

_SMOOTH = 5
"""Number of items from which composed scores that no polynomial fits mean an underfitted network, and not a
posterior of a difficult shape."""

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
        items: posteriors of one or more items.
        prior: score of the prior.
        moments: mean (d,) and covariance (d, d) of the prior.
        num_samples: number of draws.
        plan: noise, simulations, seed.
        fresh: simulations of items; None composes without calibration.
    """
    composed = ComposedScore(items, prior, plan.noise, plan.learned)
    if fresh is None:
        first, _ = _within_reach(
            uncalibrated(composed, moments, num_samples, plan, None), moments, plan, alone=True
        )
        unknown = (UNKNOWN_SHARED_ERROR,) if plan.learned is None and len(items) > MANY_ITEMS else ()
        return _widened(first, plan), replace(first.report, notes=(*first.report.notes, *unknown))
    number = max(num_samples, _FEWEST_DRAWS)
    try:
        first = uncalibrated(composed, moments, number, plan, fresh)
        draws, report = _with_simulator(first, SimulatedItems(composed, moments, plan, fresh))
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


def _with_simulator(first: Composed, given: SimulatedItems) -> tuple[Tensor, CompositionReport]:
    """Calibrated draws, as many as uncalibrated ones, and their report."""
    plan = given.plan
    first, lost = _within_reach(first, given.moments, plan)
    draws, report = first.draws, first.report
    rough = plan.is_underfitted or (report.explained < EXPLAINED and given.num_items >= _SMOOTH)
    if given.num_items < FEW_ITEMS and not report.notes:
        report = _tested_scores(first, given)
        if not (report.sbc_p_value < _REJECTED or rough):
            return draws, report
    parts = []
    for mode in range(int(first.modes.max()) + 1):
        rows = first.modes == mode
        if int(rows.sum()) > draws.shape[1] + 1:
            part = ModeCalibration(given, draws[rows], first.unknown, mode, is_prior=lost)
            if part.likelihood is None:
                will_do = lost or (
                    math.isfinite(report.sbc_p_value) and not rough
                )  # the test says whether the draws will do
                return first.draws, report if will_do else replace(report, notes=(*report.notes, _UNSETTLED))
            draws = draws.clone()
            draws[rows] = part.draws(int(rows.sum()), generator_of(plan.seed, "calibrated draws", mode))
            parts.append((int(rows.sum()), mode, part))
    if not parts:
        return draws, report
    _, mode, main = max(parts, key=lambda part: part[0])
    assert main.likelihood is not None
    rows = first.modes == mode
    test = posterior_calibration(draws[rows], *_replicates(main.likelihood, given))
    before, after = first.draws[rows], draws[rows]
    moved = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance_of(after)),
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
    far = (
        bool(out_of_reach_notes(first.draws, moments))
        if alone
        else not bool(in_reach(first.draws, moments).all())
    )
    if not (far or first.report.acceptance < _STUCK):
        return first, False
    noise = torch.randn(
        first.draws.shape, generator=generator_of(plan.seed, "prior draws"), dtype=first.draws.dtype
    )
    draws = moments[0] + noise @ torch.linalg.cholesky(moments[1]).mT
    report = replace(first.report, num_modes=1, mode_weights=(1.0,), notes=(*first.report.notes, _LOST))
    return Composed(draws, torch.zeros_like(first.modes), report), True


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
    report: CompositionReport, test: PosteriorCalibration, outlying: Outlier, influence: float
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


def _tested_scores(first: Composed, given: SimulatedItems) -> CompositionReport:
    """Report on the scores as they are, with tests of the likeliest mode's draws and of the items."""
    composed, n, noise = given.composed, given.num_items, given.composed.noise
    draws = first.draws[first.modes == int(first.modes.mode().values)]
    number = replicates_of(n)
    mean, covariance = draws.mean(dim=0)[None], covariance_of(draws)
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
    report = replace(_reported(first.report, test, outlying, influence), simulations=number * n)
    return (
        report
        if test.p_value < _REJECTED
        else replace(report, bias_shift=math.nan, calibration_residual=math.nan)
    )  # nothing to correct


def _replicates(likelihood: QuasiLikelihood, given: SimulatedItems) -> tuple[int, LogSlopes]:
    """Number of data sets that test a quasi-posterior, and slopes of their likelihoods."""
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
