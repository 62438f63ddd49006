"""Chains on a score that has no polynomial log density, where there are few items: the score itself says which steps to accept."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sbi_models.approximators.composition.modes import Score

STEPS = 150
SCORES_A_STEP = 2


def walked(score: Score, start: Tensor, generator: torch.Generator, inside: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
    """The ends of chains (m, d) from rough draws (m, d), and the share of accepted steps in the second half.

    Metropolis-adjusted Langevin steps, preconditioned by the covariance of the start. The logarithm of the ratio of densities is the
    integral of the score along the step, by Simpson's rule. No step leads out of `inside`, booleans (m,) of points (m, d). Chains do not
    cross deep valleys: weights of modes are those of the start.
    """
    m, d = start.shape
    away = start - start.mean(dim=0)
    factor = torch.linalg.cholesky(away.mT @ away / max(m - 1, 1) + 1e-10 * torch.eye(d, dtype=start.dtype))
    theta, slope, step, shares = start, score(start) @ factor, 0.4 * d ** (-1 / 6), []
    for k in range(STEPS):
        noise = torch.randn(theta.shape, generator=generator, dtype=theta.dtype)
        drift = _bounded(slope)
        move = step**2 / 2 * drift + step * noise
        new = theta + move @ factor.mT
        middle, new_slope = (value @ factor for value in score(torch.cat([(theta + new) / 2, new])).chunk(2))
        back = (-move - step**2 / 2 * _bounded(new_slope)) / step
        gained = ((slope + 4 * middle + new_slope) / 6 * move).sum(dim=-1)
        log_ratio = gained + (noise.square() - back.square()).sum(dim=-1) / 2
        accepted = (torch.rand(m, generator=generator, dtype=theta.dtype).log() < log_ratio) & inside(new)
        theta, slope = (torch.where(accepted[:, None], a, b) for a, b in ((new, theta), (new_slope, slope)))
        shares.append(float(accepted.double().mean()))
        if k < STEPS // 2:
            step = min(1.5, max(0.02, step * math.exp(0.2 * (shares[-1] - 0.6))))
    return theta, sum(shares[STEPS // 2 :]) / (STEPS - STEPS // 2)


def _bounded(slope: Tensor) -> Tensor:
    """Drifts of at most three sds, so that a chain far out does not overshoot."""
    lengths: Tensor = slope.norm(dim=-1, keepdim=True)
    return slope * (3.0 / lengths.clamp_min(1e-12)).clamp_max(1.0)
