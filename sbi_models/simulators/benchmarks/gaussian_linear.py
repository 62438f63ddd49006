"""Gaussian linear: mean of a Gaussian under a Gaussian prior in ten dimensions, with its exact posterior.

    theta ~ Normal(0, 0.1 I),   x ~ Normal(theta, 0.1 I),   theta | x ~ Normal(x / 2, 0.05 I)

Source: task T.1 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0), where the 0.1 are variances.
"""

from dataclasses import dataclass

import numpy as np

from sbi_models import seeding
from sbi_models.simulators.benchmarks.base import TractableBenchmark, log_normal_density
from sbi_models.types import Array, FloatArray, Variables


class GaussianLocation(TractableBenchmark):
    """Data x ~ Normal(theta, noise_variance I) of as many dimensions as theta; subclasses add the prior."""

    dim: int
    noise_variance: float

    @property
    def names(self) -> tuple[str, ...]:
        """theta_1 to theta_dim."""
        return tuple(f"theta_{i + 1}" for i in range(self.dim))

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(dim,)."""
        return (self.dim,)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, dim), raw space, given theta of shape (n, dim)."""
        return {"x": rng.normal(theta, np.sqrt(self.noise_variance))}

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta and x of shape (..., dim); shape (...)."""
        return np.asarray(log_normal_density(x, theta, np.sqrt(self.noise_variance)).sum(axis=-1))


@dataclass(frozen=True)
class GaussianLinear(GaussianLocation):
    """Gaussian linear model in `dim` dimensions with the variances of prior and noise.

    >>> posterior = GaussianLinear(dim=2).posterior(np.array([1.0, -1.0]))
    >>> posterior.mean.round(2).tolist(), posterior.sd.round(2).tolist()
    ([0.5, -0.5], [0.22, 0.22])
    """

    dim: int = 10
    prior_variance: float = 0.1
    noise_variance: float = 0.1

    @property
    def lower(self) -> FloatArray:
        """No lower bounds, shape (dim,)."""
        return np.full(self.dim, -np.inf)

    @property
    def upper(self) -> FloatArray:
        """No upper bounds, shape (dim,)."""
        return np.full(self.dim, np.inf)

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, dim), raw space."""
        return {"theta": rng.normal(0.0, np.sqrt(self.prior_variance), size=(batch_size, self.dim))}

    def log_prior(self, theta: Array) -> FloatArray:
        """Log density of the prior in nats at theta of shape (..., dim); shape (...)."""
        return np.asarray(log_normal_density(theta, 0.0, np.sqrt(self.prior_variance)).sum(axis=-1))

    def posterior(self, x: Array) -> "GaussianLinearPosterior":
        """The exact posterior given one data set, shape (dim,) or (1, dim), raw space."""
        variance = 1 / (1 / self.prior_variance + 1 / self.noise_variance)
        return GaussianLinearPosterior(
            self._one_data_set(x) * variance / self.noise_variance, np.full(self.dim, np.sqrt(variance))
        )


@dataclass(frozen=True, eq=False)
class GaussianLinearPosterior:
    """A Gaussian with independent components; `mean` and `sd` of shape (dim,), raw space."""

    mean: FloatArray
    sd: FloatArray

    def log_prob(self, theta: Array) -> FloatArray:
        """Log density in nats at theta of shape (..., dim), raw space; shape (...)."""
        return np.asarray(log_normal_density(theta, self.mean, self.sd).sum(axis=-1))

    def sample(self, num_samples: int, *, seed: int) -> FloatArray:
        """Draws of theta, shape (num_samples, dim), raw space."""
        rng = seeding.generator(seed, "exact posterior")
        return np.asarray(rng.normal(self.mean, self.sd, size=(num_samples, len(self.mean))))
