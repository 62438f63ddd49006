"""The default composition: scores at one small noise, calibrated by fresh simulations, and a polynomial log density fitted to them.

Pilot draws of a few items find the modes. At each, Newton's method gives a center and scales, and some tens of composed scores give a
polynomial log density from which any number of draws are made without the network.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.composed import Calibration, ComposedScore, LearnedMean, share_of_bias, shift_in_sds
from sbi_models.approximators.composition.heights import heights
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.line import LineSearch
from sbi_models.approximators.composition.modes import Mode, find_modes, newton
from sbi_models.approximators.composition.paths import gauss
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.refinement import is_weak, refined
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition.surrogate import Surrogate, degree_for, fit_points, fitted
from sbi_models.approximators.mixture import whole_shares
from sbi_models.types import Array, FloatArray

_PILOT_ITEMS, _PILOTS, _PILOT_STEPS = 3, 16, 16
_FEW_ITEMS = 10
"""Below so many items, all of them make pilots, and more of them."""

_FIRST_SHARE = 5
"""The first calibration, at a mode that may be off, takes so many times less simulations than the second."""

_TRIED = 4000
"""Simulations that the noise is chosen by."""

_REGULAR = (0.5, 2.0)
"""Precision that an item's information implies, over that of the posterior, where the latter is about normal."""

_AS_GOOD = 0.02
"""Of two noises that tell the same to within so many nats, the smaller one is taken."""


@dataclass(frozen=True)
class Plan:
    """How to compose.

    Attributes:
        noise: of the scores, in sds of standardised parameters.
        learned: what the training left of the mean score, for compositions without a simulator.
        noises: where there is a simulator: to choose from, the one at which scores tell most about the parameters.
        simulations: of the calibration.
        seed: of everything random.
    """

    noise: float
    simulations: int
    seed: int
    noises: tuple[float, ...] = ()
    learned: LearnedMean | None = None


def calibrated(
    items: Items, prior: PriorScore, moments: tuple[Tensor, Tensor], num_samples: int, plan: Plan, fresh: Fresh | None
) -> tuple[Tensor, CompositionReport]:
    """Draws (num_samples, d) of the posterior given all items, standardised space, and what to think of them.

    Args:
        items: at least two.
        prior: score of the prior.
        moments: its mean (d,) and covariance (d, d), for pilot draws.
        num_samples: draws.
        plan: noise, simulations, seed.
        fresh: simulates items; None composes without calibration.
    """
    composed = ComposedScore(items, prior, plan.noise, plan.learned if fresh is None else None)
    if items.theta_dim == 1:
        return _on_a_line(composed, moments, num_samples, plan, fresh)
    center, precision = composed.start()
    pilots, cost = _pilots(items, moments, plan.seed)
    modes = find_modes(composed, center, precision, pilots)
    if fresh is not None and plan.noises:
        cost += composed.evaluations
        composed = _most_informative(items, prior, plan, modes[0].center, fresh)
        modes = [newton(composed, mode.center, mode.precision) for mode in modes]
    peaks = [_peak(composed, mode, k, plan, fresh) for k, mode in enumerate(modes)]
    weights = _weights(composed, peaks, fresh, plan.seed)
    shares = whole_shares(weights, num_samples, 1)[0]
    drawn = [peak.draw(int(share), generator_of(plan.seed, "draws", k)) for k, (peak, share) in enumerate(zip(peaks, shares, strict=True))]
    draws = torch.cat([draws for draws, _ in drawn])
    order = seeding.generator(plan.seed, "order of composed draws").permutation(num_samples)
    main = peaks[int(np.argmax(weights))]
    report = CompositionReport(
        method="calibrated",
        num_items=len(items),
        noise=composed.noise,
        explained=min(peak.surrogate.explained for peak in peaks),
        acceptance=min(share for _, share in drawn),
        last_step=max(peak.mode.last_step for peak in peaks),
        num_modes=len(peaks),
        mode_weights=tuple(float(weight) for weight in weights),
        evaluations=composed.evaluations + cost,
        **_of_calibration(main.calibration, main.learned, main.mode.precision, len(items)),
    )
    return draws[torch.as_tensor(order)], report


def _on_a_line(
    composed: ComposedScore, moments: tuple[Tensor, Tensor], num_samples: int, plan: Plan, fresh: Fresh | None
) -> tuple[Tensor, CompositionReport]:
    """The same for one parameter, whose density is integrated on a grid."""
    items, evaluations = composed.items, 0
    pilots, cost = _pilots(items, moments, plan.seed)
    search = LineSearch(composed, float(pilots.min()), float(pilots.max()))
    line = search.line(seed=plan.seed)
    if fresh is not None and plan.noises and len(line.parts) == 1:
        better = _most_informative(items, composed.prior, plan, torch.as_tensor(line.centers), fresh)
        assert better.calibration is not None
        implied = (1 + len(items) * float(better.calibration.information)) * line.sd**2
        if better.noise != composed.noise and _REGULAR[0] < implied < _REGULAR[1]:
            composed, evaluations = better, composed.evaluations
            search = LineSearch(composed, float(line.parts[0][0][0]), float(line.parts[-1][0][-1]))
            line = search.line(seed=plan.seed)
    calibrations, learned = [], None
    for k, center in enumerate(line.centers):
        theta = torch.as_tensor([center])
        if fresh is not None:
            simulated = fresh(theta, plan.simulations, seeding.derive(plan.seed, "second", k))
            calibrations.append((float(center), composed.calibrate(theta, simulated)))
    if composed.learned is not None:
        learned = composed.use_learned(torch.as_tensor(line.centers[[int(line.weights.argmax())]]))
    line = search.line(tuple(calibrations), fresh=fresh, seed=plan.seed)
    calibration = calibrations[min(int(line.weights.argmax()), len(calibrations) - 1)][1] if calibrations else None
    report = CompositionReport(
        method="calibrated",
        num_items=len(items),
        noise=composed.noise,
        explained=line.explained,
        last_step=0.0,
        acceptance=1.0,
        num_modes=len(line.parts),
        mode_weights=tuple(float(weight) for weight in line.weights),
        evaluations=composed.evaluations + evaluations + cost,
        **_of_calibration(calibration, learned, torch.eye(1, dtype=torch.float64) / line.sd**2, len(items)),
    )
    return line.draw(num_samples, seeding.generator(plan.seed, "draws on a line")), report


@dataclass(frozen=True)
class _Peak:
    """A mode, its calibration, and the density around it."""

    mode: Mode
    surrogate: Surrogate
    calibration: Calibration | None
    learned: tuple[Tensor, Tensor] | None

    def draw(self, num_samples: int, generator: torch.Generator) -> tuple[Tensor, float]:
        if not num_samples:
            return self.mode.center.new_zeros(0, len(self.mode.center)), 1.0
        u, share = self.surrogate.draw(num_samples, generator)
        return self.mode.center + u @ self.mode.factor.mT, share


def _peak(composed: ComposedScore, mode: Mode, number: int, plan: Plan, fresh: Fresh | None) -> _Peak:
    """Calibrate at a mode, find it again, and once more with all simulations; then fit the density there."""
    composed.calibration, composed.share, learned = None, 0.0, None
    if composed.learned is not None:
        learned = composed.use_learned(mode.center)
        mode = newton(composed, mode.center, mode.precision) if composed.share else mode
    if fresh is not None:
        for simulations, name in ((plan.simulations // _FIRST_SHARE, "first"), (plan.simulations, "second")):
            composed.calibrate(mode.center, fresh(mode.center, max(simulations, 100), seeding.derive(plan.seed, name, number)))
            mode = newton(composed, mode.center, mode.precision)
        assert composed.calibration is not None
        if is_weak(composed.calibration):
            for name in ("third", "fourth"):
                composed.calibrate(mode.center, fresh(mode.center, plan.simulations, seeding.derive(plan.seed, "second", number)))
                found = refined(composed, mode.center, mode.precision, fresh, seeding.derive(plan.seed, name, number))
                if found is None:
                    break
                composed.calibration, composed.constant = found.calibration, found.constant
                mode = newton(composed, mode.center, mode.precision)
    degree = degree_for(len(mode.center))
    points = fit_points(len(mode.center), degree, generator_of(plan.seed, "points", number))
    surrogate = fitted(points, mode.whitened(composed)(points), degree)
    return _Peak(mode, surrogate, composed.calibration, learned)


def _most_informative(items: Items, prior: PriorScore, plan: Plan, center: Tensor, fresh: Fresh) -> ComposedScore:
    """The composed score at the noise at which scores of items tell most about theta near a center: by the determinant of the information.

    Where an item tells next to nothing about some direction, as next to the top of a flat or parted posterior, it is that of the plan.
    """
    simulated = list(fresh(center, _TRIED, seeding.derive(plan.seed, "noise")))
    candidates = [ComposedScore(items, prior, noise) for noise in sorted(plan.noises)]
    found = [composed.calibrate(center, simulated) for composed in candidates]
    if not all(calibration.is_informative for calibration in found):
        return next((composed for composed in candidates if composed.noise == plan.noise), ComposedScore(items, prior, plan.noise))
    told = [float(calibration.information.logdet()) for calibration in found]
    return next(composed for composed, information in zip(candidates, told, strict=True) if information >= max(told) - _AS_GOOD)


def _weights(composed: ComposedScore, peaks: list[_Peak], fresh: Fresh | None, seed: int) -> FloatArray:
    """Probabilities of the modes: their heights, and their masses from the fitted densities."""
    logs = torch.tensor([peak.surrogate.log_mass(generator_of(seed, "mass", k)) for k, peak in enumerate(peaks)], dtype=torch.float64)
    if len(peaks) > 1:
        logs += heights(composed, torch.stack([peak.mode.center for peak in peaks]), fresh, seed)
    logs += torch.stack([peak.mode.factor.diagonal().abs().log().sum() for peak in peaks])
    return np.asarray(torch.softmax(logs, dim=0).numpy())


def _of_calibration(calibration: Calibration | None, learned: tuple[Tensor, Tensor] | None, precision: Tensor, n: int) -> dict[str, Any]:
    """What the report says of a calibration, or of what the training left."""
    if learned is not None:
        bias, covariance = learned
        return {
            "bias_shift": shift_in_sds(n * bias, precision),
            "calibration_residual": _residual(n**2 * covariance, precision),
            "calibrated": share_of_bias(bias, covariance) > 0,
        }
    if calibration is None:
        return {}
    weight = calibration.weight
    bias_shift = shift_in_sds(n * weight @ calibration.bias, precision)
    scatter = weight @ calibration.variance @ weight.mT
    residual = _residual(n**2 / calibration.simulations * scatter, precision)
    ratios = torch.linalg.eigvals(torch.linalg.solve(calibration.variance, calibration.sensitivity)).real
    return {
        "bias_shift": bias_shift,
        "calibration_residual": residual,
        "information": (float(ratios.min()), float(ratios.max())),
        "simulations": calibration.simulations + calibration.simulations // _FIRST_SHARE,
        "calibrated": True,
    }


def _residual(covariance: Tensor, precision: Tensor) -> float:
    """Noise of the score (d, d) as a shift of the posterior in its sds (rms over parameters)."""
    return math.sqrt(float(torch.linalg.solve(precision, covariance).trace()) / len(precision))


def _pilots(items: Items, moments: tuple[Tensor, Tensor], seed: int) -> tuple[Tensor, int]:
    """Rough draws of the posterior of a few items, where the modes of all may be, and their cost in scores for each item."""
    n = len(items)
    few = n < _FEW_ITEMS
    chosen = np.arange(n) if few else np.sort(seeding.generator(seed, "pilot items").choice(n, _PILOT_ITEMS, replace=False))
    number, steps = (64, 32) if few else (_PILOTS, _PILOT_STEPS)
    pilots = gauss(_Some(items, chosen), moments, number, steps, generator_of(seed, "pilots"))
    return pilots[pilots.isfinite().all(dim=1)], math.ceil(number * steps * len(chosen) / n)


class _Some:
    """Some of the items."""

    def __init__(self, items: Items, chosen: Array) -> None:
        self.items, self.chosen, self.theta_dim = items, chosen, items.theta_dim

    def __len__(self) -> int:
        return len(self.chosen)

    def score(self, theta: Tensor, noise: float, rows: slice) -> Tensor:
        return torch.cat([self.items.score(theta, noise, slice(int(k), int(k) + 1)) for k in self.chosen[rows]])

    def gaussians(self) -> tuple[Tensor, Tensor]:
        means, covariances = self.items.gaussians()
        return means[self.chosen], covariances[self.chosen]


def generator_of(seed: int, *path: str | int) -> torch.Generator:
    """A generator at the start of a stream of a composition."""
    return torch.Generator().manual_seed(seeding.derive(seed, "composition", *path))
