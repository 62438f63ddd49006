"""The default composition: scores at one small noise, calibrated by fresh simulations, and a polynomial log density fitted to them.

Pilot draws of a few items find the modes. At each, Newton's method gives a center and scales, and some tens of composed scores give a
polynomial log density from which any number of draws are made without the network. Where no polynomial fits, few items are composed by
chains on the score. One parameter is integrated on a grid instead.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition import chains
from sbi_models.approximators.composition.composed import Calibration, ComposedScore
from sbi_models.approximators.composition.heights import heights
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.modes import CONVERGED, Mode, find_modes, newton
from sbi_models.approximators.composition.one_parameter import calibrated_line
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.refinement import is_weak, refined
from sbi_models.approximators.composition.report import EXPLAINED, CompositionReport
from sbi_models.approximators.composition.stages import Moments, Plan, generator_of, in_reach, most_informative, of_calibration, pilots
from sbi_models.approximators.composition.surrogate import Surrogate, degree_for, fit_points, fitted
from sbi_models.approximators.composition.typical import Contradicted
from sbi_models.approximators.mixture import whole_shares
from sbi_models.types import FloatArray

_FIRST_SHARE = 5
"""The first calibration, at a mode that may be off, takes so many times less simulations than the second."""

_LOST = 4.0
"""Sds between a mode and what a calibration there makes of it, from which on it is another one."""

_NOT_CALIBRATED = (
    "Fresh simulations do not fit the scores at the mode, so that they calibrate nothing: each item tells next to nothing about some "
    "direction there, as next to a bound of the prior. Compare with method='gauss'."
)

_MOST_SCORES = 10_000_000
"""Scores of items that chains may take."""

_NO_MODE = (
    "No mode was found where the prior reaches, so that nothing is calibrated: the network's scores of these items together are not those "
    "of a posterior. Train longer, or look at the items one by one."
)


def calibrated(
    items: Items, prior: PriorScore, moments: Moments, num_samples: int, plan: Plan, *, fresh: Fresh | None
) -> tuple[Tensor, CompositionReport]:
    """Draws (num_samples, d) of the posterior given all items, standardised space, and what to think of them.

    Args:
        items: one or more.
        prior: score of the prior.
        moments: its mean (d,) and covariance (d, d), for pilot draws.
        num_samples: draws.
        plan: noise, simulations, seed.
        fresh: simulates items; None composes without calibration.
    """
    composed = ComposedScore(items, prior, plan.noise, plan.learned if fresh is None else None)
    if items.theta_dim == 1:
        return calibrated_line(composed, moments, num_samples, plan, fresh)
    center, precision = composed.start()
    rough, cost = pilots(items, moments, plan.seed)
    modes = find_modes(composed, center, precision, rough)
    modes = [mode for mode in modes if bool(in_reach(mode.center[None], moments))] or modes[:1]
    found = all(mode.last_step < CONVERGED and bool(in_reach(mode.center[None], moments)) for mode in modes)
    if fresh is not None and plan.noises and found:
        cost += composed.evaluations
        composed = most_informative(items, prior, plan, modes[0].center, fresh)
        composed.calibration = None
        modes = [newton(composed, mode.center, mode.precision) for mode in modes]
    peaks = [_peak(composed, mode, k, plan, moments, fresh=fresh if found else None) for k, mode in enumerate(modes)]
    if fresh is not None and found and any(peak.calibration is None for peak in peaks):
        draws, report = calibrated(items, prior, moments, num_samples, plan, fresh=None)
        return draws, replace(report, notes=(*report.notes, _NOT_CALIBRATED), evaluations=report.evaluations + composed.evaluations + cost)
    good = [peak for peak in peaks if peak.mode.last_step < CONVERGED and bool(in_reach(peak.mode.center[None], moments))]
    converged, peaks = found and bool(good), good or peaks[:1]
    fits = converged and all(peak.surrogate.explained > EXPLAINED for peak in peaks)
    by_chains = not fits and len(items) * num_samples * chains.STEPS * chains.SCORES_A_STEP <= _MOST_SCORES
    if not by_chains:
        weights = _weights(composed, peaks, fresh, plan.seed)
        draws, acceptance = _from_surrogates(peaks, weights, num_samples, plan.seed)
    else:
        weights = np.array([1.0])
        composed.calibration = peaks[0].calibration if converged else None
        composed.constant = peaks[0].constant if converged else torch.zeros_like(center)
        start, spent = pilots(items, moments, plan.seed, num_samples)
        start = start[torch.arange(num_samples) % len(start)]
        draws, acceptance = chains.walked(composed, start, generator_of(plan.seed, "chains"), partial(in_reach, moments=moments))
        cost += spent
    main = peaks[int(np.argmax(weights))]
    found_out: dict[str, Any] = {"notes": (_NO_MODE,)}
    if converged:
        found_out = of_calibration(main.calibration, main.learned, main.mode.precision, len(items), main.contradicted)
    report = CompositionReport(
        method="calibrated, by chains" if by_chains else "calibrated",
        num_items=len(items),
        noise=composed.noise,
        explained=math.nan if by_chains else min(peak.surrogate.explained for peak in peaks),
        acceptance=acceptance,
        last_step=math.nan if by_chains else max(peak.mode.last_step for peak in peaks),
        num_modes=len(weights),
        mode_weights=tuple(float(weight) for weight in weights),
        evaluations=composed.evaluations + cost,
        **found_out,
    )
    return draws, report


@dataclass(frozen=True)
class _Peak:
    """A mode, its calibration and what a refinement takes off, and the density around it."""

    mode: Mode
    surrogate: Surrogate
    calibration: Calibration | None
    constant: Tensor
    learned: tuple[Tensor, Tensor] | None
    contradicted: Contradicted | None


def _peak(composed: ComposedScore, mode: Mode, number: int, plan: Plan, moments: Moments, *, fresh: Fresh | None) -> _Peak:
    """Calibrate at a mode, find it again, and once more with all simulations; then fit the density there.

    A mode that leaves the reach of the prior on the way is lost: nothing is simulated there, where a simulator may do anything.
    """
    composed.calibration, composed.share, learned, contradicted = None, 0.0, None, None
    composed.constant = torch.zeros_like(mode.center)
    if composed.learned is not None:
        learned = composed.use_learned(mode.center)
        mode = newton(composed, mode.center, mode.precision) if composed.share else mode
    if fresh is not None:
        few = max(plan.simulations // _FIRST_SHARE, 100)
        before = mode
        for simulations, name in ((few, "first"), (plan.simulations, "second")):
            if not bool(in_reach(mode.center[None], moments)):
                break
            composed.calibrate(mode.center, fresh(mode.center, simulations, seeding.derive(plan.seed, name, number)))
            mode = newton(composed, mode.center, mode.precision)
        if _is_lost(before, mode) or not bool(in_reach(mode.center[None], moments)):
            mode, composed.calibration = before, None
        else:
            contradicted = composed.least_typical()
            mode = _refined_mode(composed, mode, number, plan, fresh)
    degree = degree_for(len(mode.center))
    points = fit_points(len(mode.center), degree, generator_of(plan.seed, "points", number))
    surrogate = fitted(points, mode.whitened(composed)(points), degree)
    return _Peak(mode, surrogate, composed.calibration, composed.constant, learned, contradicted)


def _is_lost(before: Mode, mode: Mode) -> bool:
    """Whether a calibration at a mode has made the score lose it, as where an item tells next to nothing about some direction."""
    return not (mode.last_step < CONVERGED and float(before.distance(mode.center[None])) < _LOST * math.sqrt(len(mode.center)))


def _refined_mode(composed: ComposedScore, mode: Mode, number: int, plan: Plan, fresh: Fresh) -> Mode:
    """The mode after a refinement, where the network is weak and its summaries know more than its scores."""
    assert composed.calibration is not None
    if not is_weak(composed.calibration):
        return mode
    composed.calibrate(mode.center, fresh(mode.center, plan.simulations, seeding.derive(plan.seed, "third", number)))
    found = refined(composed, mode.center, mode.precision, fresh, seeding.derive(plan.seed, "fourth", number))
    if found is None:
        return mode
    composed.calibration, composed.constant = found.calibration, found.constant
    return newton(composed, mode.center, mode.precision)


def _weights(composed: ComposedScore, peaks: list[_Peak], fresh: Fresh | None, seed: int) -> FloatArray:
    """Probabilities of the modes: their heights, and their masses from the fitted densities."""
    logs = torch.tensor([peak.surrogate.log_mass(generator_of(seed, "mass", k)) for k, peak in enumerate(peaks)], dtype=torch.float64)
    if len(peaks) > 1:
        logs += heights(composed, torch.stack([peak.mode.center for peak in peaks]), fresh, seed)
    logs += torch.stack([peak.mode.factor.diagonal().abs().log().sum() for peak in peaks])
    return np.asarray(torch.softmax(logs, dim=0).numpy())


def _from_surrogates(peaks: list[_Peak], weights: FloatArray, num_samples: int, seed: int) -> tuple[Tensor, float]:
    """Draws (num_samples, d) of all peaks in random order, and the smallest share of accepted steps."""
    parts, acceptance = [], 1.0
    for k, (peak, share) in enumerate(zip(peaks, whole_shares(weights, num_samples, 1)[0], strict=True)):
        if share:
            u, accepted = peak.surrogate.draw(int(share), generator_of(seed, "draws", k))
            parts.append(peak.mode.center + u @ peak.mode.factor.mT)
            acceptance = min(acceptance, accepted)
    order = seeding.generator(seed, "order of composed draws").permutation(num_samples)
    return torch.cat(parts)[torch.as_tensor(order)], acceptance
