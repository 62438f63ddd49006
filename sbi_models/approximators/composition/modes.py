"""Modes of a density whose score is known, and the relative log density of separated posterior modes.

Modes are found by Newton's method, from a center and from pilot draws.

Scores at small noise know nothing of a valley that no parameters come from, and their integral across it is
noise. The densities of the items come from all levels of noise; those of n items sum up, with what they share
of errors. With a simulator that is calibrated: between data of the modes a and b, the logarithm of the
likelihood ratio is the best classifier, so

    P(b | x) = 1 / (1 + exp(-r(x) - o)),     r = log p(b | x) - log p(a | x) - log p(b) + log p(a)

with as many data of a as of b has an offset o of 0, were r right; the o of largest likelihood is added to r
of each item. Where even so r tells the data of a and b apart no better than a coin, as for modes that all
data leave open, it is noise, and zero is taken for it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.items import Fresh, Items
from sbi_models.approximators.composition.score import ComposedScore, share_of_bias, symmetric
from sbi_models.types import FloatArray

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


_NODES = 64
"""Points of the integral of the prior's score from one mode to another."""

_SIMULATIONS = 2000
"""Number of simulations of each mode."""

_FARTHEST = 50.0

_LEAST_EVIDENCE = 5.0
"""Evidence, in nats, of all the simulations together from which ratios are more than noise."""


@dataclass(frozen=True)
class Mode:
    """Mode of a density near a start.

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
        """Distance of theta (m, d) from the center, in sds, shape (m,)."""
        away: Tensor = torch.linalg.solve_triangular(self.factor, (theta - self.center).mT, upper=False).norm(
            dim=0
        )
        return away


def newton(score: Score, center: Tensor, precision: Tensor) -> Mode:
    """Mode by Newton's method from a center (d,) and a precision (d, d); 2 d + 1 scores a step.

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
    """Modes of a density, by Newton's method from the center and from pilots (p, d).

    Pilots that lead to a mode that is known already are left out.

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
        candidate = newton(score, pilots[open_pilots.pop(0)], modes[0].precision if modes else precision)
        near = min((float(mode.distance(candidate.center[None])) for mode in modes), default=math.inf)
        if near > _SEPARATE and _is_found(score, candidate):
            modes.append(candidate)
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


def relative_log_densities(composed: ComposedScore, modes: Tensor, fresh: Fresh | None, seed: int) -> Tensor:
    """Log density of the composed posterior at modes (m, d), less that of the first, shape (m,)."""
    prior = torch.stack([_along(composed, modes[0], mode) for mode in modes])
    logs = composed.items.log_density(modes).sum(dim=0)
    composed.evaluations += len(modes) * composed.items.evaluations_of_density
    logs_of_modes = logs - logs[0] + (1 - composed.num_items) * prior
    if fresh is not None:
        drawn = [
            [items for _, items in fresh(mode.expand(_SIMULATIONS, -1), seeding.derive(seed, "heights", k))]
            for k, mode in enumerate(modes)
        ]
        for k in range(1, len(modes)):
            pair = modes[[0, k]]
            first, last = (_log_ratios(items, pair, float(prior[k])) for items in (drawn[0], drawn[k]))
            o = log_ratio_offset(first, last)
            logs_of_modes[k] = (
                logs_of_modes[k] + composed.num_items * o
                if evidence(first + o, last + o) > _LEAST_EVIDENCE
                else prior[k]
            )
    return logs_of_modes


def log_ratio_offset(first: FloatArray, last: FloatArray) -> float:
    """Offset o above, from log likelihood ratios (k,) of data of the first mode, and of the last.

    What of it may be noise is left out.
    """
    both = np.concatenate([first, last])

    def excess(o: float) -> float:
        return float(len(last) - expit(both + o).sum())

    if excess(-_FARTHEST) <= 0 or excess(_FARTHEST) >= 0:
        return 0.0
    from scipy.optimize import brentq  # noqa: PLC0415 - worker processes import this package and need no more memory

    root = float(brentq(excess, -_FARTHEST, _FARTHEST))
    slope = float((expit(both + root) * expit(-both - root)).sum())
    noise = len(first) * expit(first + root).var() + len(last) * expit(last + root).var()
    variance = max(float(noise), 1e-12) / max(slope, 1e-300) ** 2
    return root * share_of_bias(
        torch.tensor([root], dtype=torch.float64), torch.tensor([[variance]], dtype=torch.float64)
    )


def evidence(first: FloatArray, last: FloatArray) -> float:
    """Nats by which log likelihood ratios (k,) tell data of the first mode from those of the last.

    Zero is no better than a coin.
    """
    return float(log_expit(-first).sum() + log_expit(last).sum() + (len(first) + len(last)) * np.log(2))


def _log_ratios(items: list[Items], pair: Tensor, prior: float) -> FloatArray:
    logs = torch.cat([part.log_density(pair) for part in items])
    return np.asarray((logs[:, 1] - logs[:, 0]).numpy() - prior)


def _along(composed: ComposedScore, first: Tensor, last: Tensor) -> Tensor:
    """The integral of the prior's score on the straight line between two points (d,)."""
    nodes, widths = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(_NODES))
    theta = first + (nodes[:, None] + 1) / 2 * (last - first)
    return (composed.prior(theta) @ (last - first) * widths).sum() / 2
