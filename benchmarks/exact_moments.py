"""Exact posterior moments of the beds, in closed form or by sums over a grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Exact:
    """Means and standard deviations of all parameters, (d,) each; on a grid also P(first > 0)."""

    mean: np.ndarray
    sd: np.ndarray
    positive: float | None = None


def of_beta(a: np.ndarray, b: np.ndarray) -> Exact:
    return Exact(a / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b))


def of_gamma(shape: float, rate: float) -> Exact:
    return Exact(np.array([shape / rate]), np.array([np.sqrt(shape) / rate]))


def on_grid(
    log_density: Callable[[np.ndarray], np.ndarray], low: Sequence[float], high: Sequence[float], points: int
) -> Exact:
    """Moments of a density on a box by sums over a grid (points, ..., d), refined around the mass."""
    low, high = np.array(low, dtype=float), np.array(high, dtype=float)
    for _ in range(6):
        axes = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        logs = log_density(grid)
        weights = [np.ones(points) for _ in axes]
        for weight in weights:  # the trapezoid rule: a density need not vanish at the ends of the box
            weight[[0, -1]] = 0.5
        p = np.exp(logs - logs.max()) * np.prod(np.meshgrid(*weights, indexing="ij"), axis=0)
        p /= p.sum()
        mean = np.tensordot(p, grid, axes=p.ndim)
        sd = np.sqrt(np.tensordot(p, (grid - mean) ** 2, axes=p.ndim))
        reach = np.maximum(9 * sd, 3 * (high - low) / (points - 1))
        new_low, new_high = np.maximum(low, mean - reach), np.minimum(high, mean + reach)
        if np.all(new_high - new_low > 0.7 * (high - low)):
            break
        low, high = new_low, new_high
    return Exact(mean, sd, float(p[grid[..., 0] > 0].sum()))
