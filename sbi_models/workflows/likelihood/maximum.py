"""Maxima of log densities of many data sets at once, by BFGS from several starts.

J. Nocedal, S. J. Wright, Numerical Optimization (2006), ch. 6.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function of points (m, d): values (m,) to be made large, -inf where there is none, and gradients (m, d)."""

_ITERATIONS, _HALVINGS = 200, 30
_ENOUGH, _TOLERANCE = 1e-4, 1e-9


def maximize(objective: Objective, start: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Local maxima (m, d) near starting points (m, d), and their values (m,).

    Args:
        objective: the function.
        start: points with a finite value.
        scale: typical size of steps in each coordinate (m, d).
    """
    points, m, d = start.clone(), *start.shape
    value, slope = objective(points)
    inverse = torch.diag_embed(scale.square())
    eye = torch.eye(d, dtype=start.dtype).expand(m, d, d)
    active = value.isfinite()
    first = True
    for _ in range(_ITERATIONS):
        if not bool(active.any()):
            break
        direction = (inverse @ slope[..., None])[..., 0]
        gain = (direction * slope).sum(dim=1)
        length = (direction / scale).norm(dim=1, keepdim=True)
        if first:
            direction = direction / length.clamp(min=1.0)
            gain, first = gain / length[:, 0].clamp(min=1.0), False
        step = _step(objective, points, direction, value=value, gain=gain, active=active)
        moved = points + step[:, None] * direction
        new_value, new_slope = objective(moved)
        s, y = moved - points, slope - new_slope
        product = (s * y).sum(dim=1)
        rho = torch.where(product > 1e-12 * s.norm(dim=1) * y.norm(dim=1), 1 / product, 0.0)
        left = eye - rho[:, None, None] * s[:, :, None] * y[:, None, :]
        updated = left @ inverse @ left.mT + rho[:, None, None] * s[:, :, None] * s[:, None, :]
        inverse = torch.where((rho > 0)[:, None, None], updated, inverse)
        still = active & (new_value - value > _TOLERANCE * (1 + value.abs()))
        points = torch.where(active[:, None], moved, points)
        value = torch.where(active, new_value, value)
        slope = torch.where(active[:, None], new_slope, slope)
        active = still
    return points, value


def _step(
    objective: Objective, points: Tensor, direction: Tensor, *, value: Tensor, gain: Tensor, active: Tensor
) -> Tensor:
    """Lengths (m,) of steps that raise the value enough, by halving; 0 where there is none."""
    step, done = torch.ones_like(value), ~active
    for _ in range(_HALVINGS):
        tried, _ = objective(points + step[:, None] * direction)
        done |= tried >= value + _ENOUGH * step * gain
        if bool(done.all()):
            break
        step = torch.where(done, step, step / 2)
    return torch.where(done & active, step, 0.0)
