"""Gaussian linear uniform: mean of a Gaussian under a uniform prior in ten dimensions, with exact posterior.

    theta ~ Uniform(-1, 1)^10,   x ~ Normal(theta, 0.1 I)
    theta | x ~ Normal(x, 0.1 I) truncated to the box of the prior

Source: task T.2 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0), where 0.1 is a variance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.simulators.benchmarks.base import BoxPrior
from sbi_models.simulators.benchmarks.gaussian_linear import GaussianLocation
from sbi_models.types import Array, FloatArray


@dataclass(frozen=True)
class GaussianLinearUniform(GaussianLocation, BoxPrior):
    """Gaussian linear uniform model in `dim` dimensions with half width of the box and noise variance."""

    dim: int = 10
    half_width: float = 1.0
    noise_variance: float = 0.1

    @property
    def lower(self) -> FloatArray:
        """-half_width, shape (dim,)."""
        return np.full(self.dim, -self.half_width)

    @property
    def upper(self) -> FloatArray:
        """half_width, shape (dim,)."""
        return np.full(self.dim, self.half_width)

    def posterior(self, x: Array) -> "TruncatedNormalPosterior":
        """The exact posterior given one data set, shape (dim,) or (1, dim), raw space."""
        return TruncatedNormalPosterior(
            self._one_data_set(x), np.sqrt(self.noise_variance), self.lower, self.upper
        )


@dataclass(frozen=True, eq=False)
class TruncatedNormalPosterior:
    """Independent Normal(location, scale) truncated to a box, raw space.

    `location`, `lower` and `upper` have shape (dim,); `scale` is a number.
    """

    location: FloatArray
    scale: float
    lower: FloatArray
    upper: FloatArray

    @property
    def _marginals(self) -> Any:
        from scipy.stats import truncnorm  # noqa: PLC0415 - a second to import, which no other model needs

        a, b = ((edge - self.location) / self.scale for edge in (self.lower, self.upper))
        return truncnorm(a, b, loc=self.location, scale=self.scale)

    @property
    def mean(self) -> FloatArray:
        """Posterior mean, shape (dim,)."""
        return np.asarray(self._marginals.mean())

    @property
    def sd(self) -> FloatArray:
        """Posterior standard deviation, shape (dim,)."""
        return np.asarray(self._marginals.std())

    def log_prob(self, theta: Array) -> FloatArray:
        """Log density in nats at theta of shape (..., dim), raw space, -inf outside the box; shape (...)."""
        return np.asarray(self._marginals.logpdf(theta).sum(axis=-1))

    def sample(self, num_samples: int, *, seed: int) -> FloatArray:
        """Draws of theta, shape (num_samples, dim), raw space."""
        levels = seeding.generator(seed, "exact posterior").uniform(size=(num_samples, len(self.location)))
        return np.asarray(self._marginals.ppf(levels))
