"""Composition of one parameter: the score on an adaptive grid, integrated to a density.

The density may have any shape and number of modes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sbi_models.approximators.composition.items import Fresh
from sbi_models.approximators.composition.modes import relative_log_densities
from sbi_models.approximators.composition.score import ComposedScore
from sbi_models.types import Array, FloatArray

if TYPE_CHECKING:
    from scipy.interpolate import CubicSpline

_POINTS = 40
_REFINEMENTS = 2
_DEPTH = 30.0
"""Nats below the mode at which the density is taken for zero."""

_VALLEY = 2.0
"""Nats below both neighbouring modes at which a valley separates intervals."""

_LEAST = 1e-6
"""Probability of a part that is kept."""

_MOST_DOUBLINGS = 8
_FINE = 4001
"""Points of the final density, in every part of the line that has some."""


@dataclass(frozen=True)
class Line:
    """Density of one parameter on separate intervals.

    Attributes:
        parts: grid and density of each part, (k,) each; together they have an integral of 1.
        explained: R^2 of the score at every other grid point, by a spline through the others.
    """

    parts: list[tuple[FloatArray, FloatArray]]
    explained: float

    @property
    def weights(self) -> FloatArray:
        """Probability of each part."""
        return np.array([np.trapezoid(density, grid) for grid, density in self.parts])

    @property
    def centers(self) -> FloatArray:
        """Position of the highest density in each part."""
        return np.array([grid[np.argmax(density)] for grid, density in self.parts])

    @property
    def sd(self) -> float:
        """Standard deviation of the density within its parts."""
        within = 0.0
        for grid, density in self.parts:
            mass = np.trapezoid(density, grid)
            mean = np.trapezoid(density * grid, grid) / max(mass, 1e-300)
            within += float(np.trapezoid(density * (grid - mean) ** 2, grid))
        return float(np.sqrt(within))

    def draw(self, num_samples: int, rng: np.random.Generator) -> Tensor:
        """Draws (num_samples, 1): stratified over the whole line, in random order."""
        grid = np.concatenate([grid for grid, _ in self.parts])
        steps = [np.concatenate([[0.0], np.cumsum((d[1:] + d[:-1]) / 2 * np.diff(g))]) for g, d in self.parts]
        starts = np.concatenate([[0.0], np.cumsum([step[-1] for step in steps])])
        cumulative = (
            np.concatenate([start + step for start, step in zip(starts, steps, strict=False)]) / starts[-1]
        )
        levels = (rng.permutation(num_samples) + rng.uniform(size=num_samples)) / num_samples
        return torch.as_tensor(np.interp(levels, cumulative + 1e-15 * np.arange(len(cumulative)), grid))[
            :, None
        ]


class AdaptiveGrid:
    """Scores of items, summed on a grid that is refined where the density is.

    Args:
        composed: the composed score of one parameter.
        low, high: ends of the first grid, which is made longer until the density is negligible.
    """

    def __init__(self, composed: ComposedScore, low: float, high: float) -> None:
        self.composed = composed
        self._points: FloatArray = np.array([])
        self._sums: FloatArray = np.array([])
        self._priors: FloatArray = np.array([])
        self._add(np.linspace(low, high, _POINTS))
        for _ in range(_MOST_DOUBLINGS):
            log_density, length = self._log_density(), self._points[-1] - self._points[0]
            values = log_density(self._points)
            ends = [values[0] > values.max() - _DEPTH, values[-1] > values.max() - _DEPTH]
            if not any(ends):
                break
            new = [side for side, needed in zip(self._beyond(length / 2), ends, strict=True) if needed]
            self._add(np.concatenate(new))
        for _ in range(_REFINEMENTS):
            parts = self._parts()
            self._add(
                np.concatenate([np.linspace(a, b, max(8, _POINTS // len(parts)) + 2)[1:-1] for a, b in parts])
            )

    def line(self, *, fresh: Fresh | None = None, seed: int = 0) -> Line:
        """Density on the grid, with separate intervals weighed by `relative_log_densities`.

        Args:
            fresh: simulations of items that calibrate those weights; None without a simulator.
            seed: seed of the simulations.
        """
        log_density = self._log_density()
        grids = [np.linspace(a, b, _FINE) for a, b in self._parts()]
        logs = [log_density(grid) for grid in grids]
        if len(grids) > 1:
            centers = torch.as_tensor(
                np.array([grid[np.argmax(log)] for grid, log in zip(grids, logs, strict=True)])
            )[:, None]
            tops = relative_log_densities(self.composed, centers, fresh, seed).numpy()
            logs = [log - log.max() + height for log, height in zip(logs, tops, strict=True)]
        top = max(float(log.max()) for log in logs)
        densities = [np.exp(log - top) for log in logs]
        total = sum(np.trapezoid(density, grid) for grid, density in zip(grids, densities, strict=True))
        parts = [(grid, density / total) for grid, density in zip(grids, densities, strict=True)]
        return Line([part for part in parts if np.trapezoid(part[1], part[0]) > _LEAST], self._explained())

    def _add(self, points: FloatArray) -> None:
        points = np.setdiff1d(points, self._points)
        if not len(points):
            return
        theta = torch.as_tensor(points)[:, None]
        sums, priors = (
            value[:, 0].numpy() for value in (self.composed.summed(theta), self.composed.prior(theta))
        )
        everything = np.concatenate([self._points, points])
        order = np.argsort(everything)
        self._points = everything[order]
        self._sums = np.concatenate([self._sums, sums])[order]
        self._priors = np.concatenate([self._priors, priors])[order]

    def _score(self) -> FloatArray:
        n = self.composed.num_items
        score: Array = self._sums + (1 - n) * self._priors
        if self.composed.learned is not None and self.composed.share:
            learned = self.composed.learned(torch.as_tensor(self._points)[:, None]).correction[:, 0].numpy()
            score = score - n * self.composed.share * (learned - self._priors)
        return score

    def _log_density(self) -> "CubicSpline":
        return _spline(self._points, self._score()).antiderivative()

    def _parts(self) -> list[tuple[float, float]]:
        """Intervals around one mode each, from deep valley to deep valley, without negligible density."""
        log_density, parts = self._log_density(), []
        for start, stop in _cut(log_density, float(self._points[0]), float(self._points[-1])):
            grid = np.linspace(start, stop, _FINE)
            logs = log_density(grid)
            top = int(np.argmax(logs))
            dead = np.flatnonzero(logs < logs[top] - _DEPTH)
            first, last = dead[dead < top], dead[dead > top]
            parts.append(
                (float(grid[first[-1] if len(first) else 0]), float(grid[last[0] if len(last) else -1]))
            )
        return parts

    def _beyond(self, length: float) -> tuple[FloatArray, FloatArray]:
        steps = np.arange(1, _POINTS // 4 + 1) / (_POINTS // 4) * length
        return self._points[0] - steps, self._points[-1] + steps

    def _explained(self) -> float:
        """R^2 of a spline through every other score against the others, where the density is."""
        score = self._score()
        guess = _spline(self._points[::2], score[::2])(self._points[1::2])
        inside = np.zeros(len(guess), dtype=bool)
        for a, b in self._parts():
            inside |= (self._points[1::2] >= a) & (self._points[1::2] <= b)
        compared = score[1::2][inside]
        return (
            1
            - float(
                ((guess[inside] - compared) ** 2).sum()
                / max(((compared - compared.mean()) ** 2).sum(), 1e-300)
            )
            if len(compared) > 2
            else 1.0
        )


def _cut(log_density: "CubicSpline", start: float, stop: float) -> list[tuple[float, float]]:
    """Pieces of an interval with one mode each, cut at the bottoms of deep valleys."""
    grid = np.linspace(start, stop, _FINE)
    logs = log_density(grid)
    cuts, top, bottom = [0], logs[0], 0
    for k, value in enumerate(logs):
        if value < logs[bottom]:
            bottom = k
        if logs[bottom] < min(top, value) - _VALLEY:
            cuts.append(bottom)
            top, bottom = value, k
        elif value > top:
            top, bottom = value, k
    return [(float(grid[a]), float(grid[b])) for a, b in zip(cuts, [*cuts[1:], len(grid) - 1], strict=True)]


def _spline(points: FloatArray, values: FloatArray) -> "CubicSpline":
    from scipy.interpolate import CubicSpline  # noqa: PLC0415 - worker processes import this package and need no more memory

    return CubicSpline(points, values)
