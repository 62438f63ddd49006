"""SLCP, simple likelihood and complex posterior: mean, scales and correlation of four points in the plane.

    theta ~ Uniform(-3, 3)^5,   points 1..4 ~ Normal((theta_1, theta_2), S)
    S = [[s_1^2, r s_1 s_2], [r s_1 s_2, s_2^2]] + 1e-6 I
    s_1 = theta_3^2,   s_2 = theta_4^2,   r = tanh(theta_5)

x holds the points one after the other, shape (8,). The signs of theta_3 and theta_4 do not enter: the
posterior has four equal copies.

Source: task T.3 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0), after G. Papamakarios et al., Sequential neural likelihood, AISTATS 2019.
"""

from dataclasses import dataclass

import numpy as np

from sbi_models.simulators.benchmarks.base import BoxPrior
from sbi_models.types import Array, FloatArray, Variables

_JITTER = 1e-6
"""sbibm's addition to both variances."""


@dataclass(frozen=True)
class SLCP(BoxPrior):
    """SLCP model with five parameters; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """theta_1 to theta_5."""
        return tuple(f"theta_{i + 1}" for i in range(5))

    @property
    def lower(self) -> FloatArray:
        """-3, shape (5,)."""
        return np.full(5, -3.0)

    @property
    def upper(self) -> FloatArray:
        """3, shape (5,)."""
        return np.full(5, 3.0)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(8,)."""
        return (8,)

    def covariance(self, theta: Array) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Both variances and the covariance of a point, each of shape (...), for theta of shape (..., 5)."""
        s1, s2 = theta[..., 2] ** 2, theta[..., 3] ** 2
        return s1**2 + _JITTER, s2**2 + _JITTER, np.tanh(theta[..., 4]) * s1 * s2

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 8), raw space, given theta of shape (n, 5)."""
        var1, var2, cov = (value[:, None] for value in self.covariance(theta))
        first, second = rng.normal(size=(2, len(theta), 4))
        sd1 = np.sqrt(var1)
        points = np.stack([sd1 * first, cov / sd1 * first + np.sqrt(var2 - cov**2 / var1) * second], axis=-1)
        return {"x": (points + theta[:, None, :2]).reshape(-1, 8)}

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta of shape (..., 5) and x of shape (..., 8); shape (...)."""
        theta, x = np.asarray(theta, dtype=float), np.asarray(x, dtype=float)
        var1, var2, cov = self.covariance(theta)
        determinant = var1 * var2 - cov**2
        d1, d2 = x[..., 0::2] - theta[..., :1], x[..., 1::2] - theta[..., 1:2]
        squares = var2 * (d1**2).sum(-1) - 2 * cov * (d1 * d2).sum(-1) + var1 * (d2**2).sum(-1)
        return np.asarray(-squares / determinant / 2 - 2 * np.log(determinant) - 4 * np.log(2 * np.pi))
