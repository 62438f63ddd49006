"""Uncalibrated composition: draws by the scores of single items as they are, and their modes.

Pilot draws of a few items find the modes. At each, Newton's method gives a center and scales, and some tens
of composed scores give a polynomial log density from which any number of draws are made without the network.
One parameter is integrated on a grid instead.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.diffusion import gauss_draws
from sbi_models.approximators.composition.grid_density import AdaptiveGrid
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.modes import (
    CONVERGED,
    Mode,
    find_modes,
    newton,
    relative_log_densities,
)
from sbi_models.approximators.composition.plan import (
    Moments,
    Plan,
    generator_of,
    in_reach,
    shared_error_numbers,
)
from sbi_models.approximators.composition.polynomial_density import (
    PolynomialDensity,
    degree_for,
    fit_density,
    fit_points,
)
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition.score import ComposedScore
from sbi_models.approximators.mixture import whole_shares
from sbi_models.types import FloatArray

_FEW_ITEMS = 10
"""Below so many items, all of them make pilots, and more of them; of one parameter there are always more, so
that no mode is missed."""

_PILOT_ITEMS, _PILOTS, _PILOT_STEPS = 2, 16, 14
_MORE_PILOTS, _MORE_STEPS = 64, 32

_NO_MODE = (
    "No mode was found where the prior reaches: the network's scores of these items together are not those "
    "of a posterior. Train longer, or look at the items one by one."
)


@dataclass(frozen=True)
class Composed:
    """Draws (s, d), standardized space, in random order, their modes (s,), and the report so far."""

    draws: Tensor
    modes: Tensor
    report: CompositionReport
    unknown: Tensor | None = None
    """Covariance (d, d) of what is not known of the shared errors, as a shift of the posterior."""


def uncalibrated(
    composed: ComposedScore, moments: Moments, num_samples: int, plan: Plan, fresh: Fresh | None
) -> Composed:
    """Draws of the posterior that a composed score has; `fresh` weighs modes that are apart."""
    if composed.items.theta_dim == 1:
        return _on_a_line(composed, moments, num_samples, plan, fresh)
    items = composed.items
    center, precision = composed.start()
    rough, cost = pilot_draws(items, moments, plan.seed)
    modes = find_modes(composed, center, precision, rough)
    modes = [mode for mode in modes if _is_good(mode, moments)] or modes[:1]
    sd = torch.linalg.inv(modes[0].precision).diagonal().clamp_min(0).sqrt()
    learned = composed.use_learned(modes[0].center, sd) if composed.learned is not None else None
    if composed.share:
        modes = [newton(composed, mode.center, mode.precision) for mode in modes]
    good = [mode for mode in modes if _is_good(mode, moments)]
    modes, converged = good or modes[:1], bool(good)
    fits = [_fit_at_mode(composed, mode, k, plan) for k, mode in enumerate(modes)]
    weights = _weights(composed, modes, fits, fresh, plan.seed)
    draws, labels, acceptance = _from_fits(modes, fits, weights, num_samples, plan.seed)
    main = modes[int(np.argmax(weights))]
    numbers: dict[str, Any] = (
        shared_error_numbers(learned, main.precision, len(items)) if converged else {"notes": (_NO_MODE,)}
    )
    report = CompositionReport(
        method="calibrated",
        num_items=len(items),
        noise=composed.noise,
        explained=min(fit.explained for fit in fits),
        acceptance=acceptance,
        last_step=max(mode.last_step for mode in modes),
        num_modes=len(weights),
        mode_weights=tuple(float(weight) for weight in weights),
        evaluations=composed.evaluations + cost,
        **numbers,
    )
    return Composed(draws, labels, report, _shift(learned, main.precision, len(items)))


def _on_a_line(
    composed: ComposedScore, moments: Moments, num_samples: int, plan: Plan, fresh: Fresh | None
) -> Composed:
    rough, cost = pilot_draws(composed.items, moments, plan.seed)
    search = AdaptiveGrid(composed, float(rough.min()), float(rough.max()))
    line = search.line(seed=plan.seed)
    top = torch.as_tensor(line.centers[[int(line.weights.argmax())]])
    learned = (
        composed.use_learned(top, torch.full_like(top, line.sd)) if composed.learned is not None else None
    )
    line = search.line(fresh=fresh, seed=plan.seed)
    precision = torch.eye(1, dtype=torch.float64) / line.sd**2
    report = CompositionReport(
        method="calibrated",
        num_items=composed.num_items,
        noise=composed.noise,
        explained=line.explained,
        num_modes=len(line.parts),
        mode_weights=tuple(float(weight) for weight in line.weights),
        evaluations=composed.evaluations + cost,
        **shared_error_numbers(learned, precision, composed.num_items),
    )
    draws = line.draw(num_samples, seeding.generator(plan.seed, "draws on a line"))
    starts = torch.tensor([float(grid[0]) for grid, _ in line.parts[1:]], dtype=torch.float64)
    labels = torch.searchsorted(starts, draws[:, 0].contiguous(), right=True)
    return Composed(draws, labels, report, _shift(learned, precision, composed.num_items))


def pilot_draws(items: Items, moments: Moments, seed: int) -> tuple[Tensor, int]:
    """Rough draws (m, d) of the posterior of a few items, and their cost in scores for each item.

    They lie where the modes of all items may be.

    Draws out of reach of the prior are left out; if hardly any is left, draws of the prior stand for them.
    Few items are all taken.
    """
    n = len(items)
    if n < _FEW_ITEMS:
        chosen, number, steps = np.arange(n), _MORE_PILOTS, _MORE_STEPS
    else:
        chosen = np.sort(seeding.generator(seed, "pilot items").choice(n, _PILOT_ITEMS, replace=False))
        number, steps = _PILOTS if items.theta_dim > 1 else _MORE_PILOTS, _PILOT_STEPS
    drawn = gauss_draws(items.some(chosen), moments, number, steps, generator_of(seed, "pilots", number))
    near = drawn[in_reach(drawn, moments)]
    if len(near) <= items.theta_dim:
        noise = torch.randn(drawn.shape, generator=generator_of(seed, "prior pilots"), dtype=drawn.dtype)
        near = moments[0] + noise @ torch.linalg.cholesky(moments[1]).mT
    return near, math.ceil(number * steps * len(chosen) / n)


def _is_good(mode: Mode, moments: Moments) -> bool:
    return mode.last_step < CONVERGED and bool(in_reach(mode.center[None], moments))


def _fit_at_mode(composed: ComposedScore, mode: Mode, number: int, plan: Plan) -> PolynomialDensity:
    degree = degree_for(len(mode.center))
    points = fit_points(len(mode.center), degree, generator_of(plan.seed, "points", number))
    return fit_density(points, mode.whitened(composed)(points), degree)


def _weights(
    composed: ComposedScore, modes: list[Mode], fits: list[PolynomialDensity], fresh: Fresh | None, seed: int
) -> FloatArray:
    """Probabilities of the modes: their heights, and their masses from the fitted densities."""
    logs = torch.tensor(
        [fit.log_mass(generator_of(seed, "mass", k)) for k, fit in enumerate(fits)], dtype=torch.float64
    )
    if len(modes) > 1:
        logs += relative_log_densities(composed, torch.stack([mode.center for mode in modes]), fresh, seed)
    logs += torch.stack([mode.factor.diagonal().abs().log().sum() for mode in modes])
    return np.asarray(torch.softmax(logs, dim=0).numpy())


def _from_fits(
    modes: list[Mode], fits: list[PolynomialDensity], weights: FloatArray, num_samples: int, seed: int
) -> tuple[Tensor, Tensor, float]:
    """Draws (num_samples, d) of all modes in random order, their modes, and the smallest acceptance."""
    parts, labels, acceptance = [], [], 1.0
    for k, share in enumerate(whole_shares(weights, num_samples, 1)[0]):
        if share:
            u, accepted = fits[k].draw(int(share), generator_of(seed, "draws", k))
            parts.append(modes[k].center + u @ modes[k].factor.mT)
            labels.append(torch.full((int(share),), k))
            acceptance = min(acceptance, accepted)
    order = torch.as_tensor(seeding.generator(seed, "order of composed draws").permutation(num_samples))
    return torch.cat(parts)[order], torch.cat(labels)[order], acceptance


def _shift(learned: tuple[Tensor, Tensor] | None, precision: Tensor, num_items: int) -> Tensor | None:
    """Covariance (d, d) of the shift of a posterior by a noise of the scores that all items share."""
    if learned is None:
        return None
    covariance = torch.linalg.inv(precision)
    shift: Tensor = num_items**2 * covariance @ learned[1] @ covariance
    return shift
