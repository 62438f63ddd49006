"""Modes of a density whose score is known: Newton's method, and a search from pilot draws."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sbi_models.approximators.composition.score import symmetric

Score = Callable[[Tensor], Tensor]
"""d log p / d theta (m, d) at theta (m, d)."""

_STEP = 0.5
_MOST_STEPS = 10
_ENOUGH = 1e-2
CONVERGED = 0.1
"""Length of a last step, in sds, after which a mode counts as found."""

_MOST_MODES = 4
_MOST_FAILURES = 2
_SEPARATE = 3.0
"""Sds between modes that are two."""


@dataclass(frozen=True)
class Mode:
    """Where a density is highest, near a start.

    Attributes:
        center: (d,).
        factor: L (d, d) with L L^T the inverse of the precision there; theta = center + L u has u of unit
            variance.
        last_step: the length of Newton's last step, in sds; small where it has converged.
    """

    center: Tensor
    factor: Tensor
    last_step: float

    @property
    def precision(self) -> Tensor:
        """The negative slope of the score (d, d)."""
        precision: Tensor = torch.cholesky_inverse(self.factor)
        return precision

    def whitened(self, score: Score) -> Score:
        """The score of u (m, d)."""
        return lambda u: score(self.center + u @ self.factor.mT) @ self.factor

    def distance(self, theta: Tensor) -> Tensor:
        """Of theta (m, d) from the center, in sds, shape (m,)."""
        away: Tensor = torch.linalg.solve_triangular(self.factor, (theta - self.center).mT, upper=False).norm(
            dim=0
        )
        return away


def newton(score: Score, center: Tensor, precision: Tensor) -> Mode:
    """The mode that Newton's method finds from a center (d,) and a first precision (d, d); 2 d + 1 scores a
    step.

    Slopes are central differences over half an sd to either side, so that they are those of the bulk of the
    density. Steps are at most 3 sqrt(d) sds long, precisions fall by a factor of at most 20 in each.
    """
    d = len(center)
    step = _STEP * torch.eye(d, dtype=center.dtype)
    points = torch.cat([torch.zeros(1, d, dtype=center.dtype), step, -step])
    length = math.inf
    mode = Mode(center, factor_of(precision), length)
    for _ in range(_MOST_STEPS):
        values = mode.whitened(score)(points)
        slope = symmetric(values[d + 1 :] - values[1 : d + 1]) / (2 * _STEP)
        curvatures, axes = torch.linalg.eigh(slope)
        curvature = axes @ torch.diag(curvatures.clamp_min(0.05)) @ axes.mT
        move = torch.linalg.solve(curvature, values[0])
        length = float(move.norm())
        move = move * min(1.0, 3 * math.sqrt(d) / max(length, 1e-300))
        mode = Mode(mode.center + mode.factor @ move, mode.factor @ factor_of(curvature), length)
        if length < _ENOUGH * math.sqrt(d) and float(curvatures.min()) > 0.05:
            break
    return mode


def factor_of(precision: Tensor) -> Tensor:
    """A lower triangular L with L L^T the inverse of a precision (d, d)."""
    factor: Tensor = torch.linalg.cholesky(torch.linalg.inv(symmetric(precision)))
    return factor


def find_modes(score: Score, center: Tensor, precision: Tensor, pilots: Tensor) -> list[Mode]:
    """The modes of a density: Newton's from the center, and from pilots (p, d) that do not lead to a mode
    found before.

    If there is none, the one that is returned has an infinite last step.

    A pilot leads to a mode if one Newton step with the precision there takes it at least half of the way, or
    it lies there already.
    """
    first = newton(score, center, precision)
    modes = [first] if _is_found(score, first) else []
    scores = score(pilots) if len(pilots) else pilots
    failures, open_pilots = 0, list(range(len(pilots)))
    while len(modes) < _MOST_MODES and failures < _MOST_FAILURES:
        for mode in modes:
            away = mode.distance(pilots)
            after = mode.distance(pilots + scores @ (mode.factor @ mode.factor.mT))
            open_pilots = [
                k
                for k in open_pilots
                if not (after[k] < away[k] / 2 or away[k] < _SEPARATE * math.sqrt(len(center)))
            ]
        if not open_pilots:
            break
        found = newton(score, pilots[open_pilots.pop(0)], modes[0].precision if modes else precision)
        near = min((float(mode.distance(found.center[None])) for mode in modes), default=math.inf)
        if near > _SEPARATE and _is_found(score, found):
            modes.append(found)
        else:
            failures += 1
    return modes or [Mode(first.center, factor_of(precision), math.inf)]


def _is_found(score: Score, mode: Mode) -> bool:
    """Whether Newton's method has converged, to a peak."""
    return math.isfinite(mode.last_step) and mode.last_step < CONVERGED and _is_peak(score, mode)


def _is_peak(score: Score, mode: Mode) -> bool:
    """Whether the score points inwards two sds to either side, along every axis."""
    d = len(mode.center)
    points = 2 * torch.eye(d, dtype=mode.center.dtype)
    outwards = mode.whitened(score)(torch.cat([points, -points]))
    along = torch.cat([outwards[:d].diagonal(), -outwards[d:].diagonal()])
    return bool((along < 0).all())
