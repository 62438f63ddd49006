"""Log-normal priors of positive parameters, and a grid posterior for models of two parameters."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sbi_models import seeding
from sbi_models.errors import DataError
from sbi_models.simulators.benchmarks.base import TractableBenchmark, log_normal_density
from sbi_models.types import Array, FloatArray, Variables


class LogNormalPrior(TractableBenchmark):
    """Independent theta_i ~ LogNormal(mu_i, sigma_i).

    Subclasses give `log_location` and `log_scale`, each of shape (d,).
    """

    @property
    @abstractmethod
    def log_location(self) -> FloatArray:
        """Prior means of log theta, shape (d,)."""

    @property
    @abstractmethod
    def log_scale(self) -> FloatArray:
        """Prior standard deviations of log theta, shape (d,)."""

    @property
    def lower(self) -> FloatArray:
        """Zero, shape (d,)."""
        return np.zeros(len(self.names))

    @property
    def upper(self) -> FloatArray:
        """No upper bounds, shape (d,)."""
        return np.full(len(self.names), np.inf)

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, d), raw space."""
        return {
            "theta": np.exp(rng.normal(self.log_location, self.log_scale, size=(batch_size, len(self.names))))
        }

    def log_prior(self, theta: Array) -> FloatArray:
        """Log prior density in nats at theta of shape (..., d), -inf unless all are positive; shape (...)."""
        theta = np.asarray(theta, dtype=float)
        positive = self._within(theta)
        log_theta = np.log(np.where(positive[..., None], theta, 1.0))
        density = (log_normal_density(log_theta, self.log_location, self.log_scale) - log_theta).sum(axis=-1)
        return np.where(positive, density, -np.inf)


@dataclass(frozen=True, eq=False)
class LogGridPosterior:
    """Posterior of two parameters by a sum over a grid in log theta, refined around the posterior mass.

    Each of `rounds` grids spans what the one before found within 30 nats of its highest point; the last has
    `size` points a side.
    """

    model: LogNormalPrior
    x: FloatArray
    size: int = 161
    rounds: int = 4

    @cached_property
    def _grid(self) -> tuple[list[FloatArray], FloatArray, float]:
        """Axes in log theta, log posterior per d log theta on the grid, shape (size, size), and log p(x)."""
        low, high = (self.model.log_location + side * 5 * self.model.log_scale for side in (-1, 1))
        for size in (self.size // 2,) * (self.rounds - 1) + (self.size,):
            axes = [np.linspace(low[i], high[i], size) for i in range(2)]
            points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
            log_joint = self.model.log_joint(np.exp(points), self.x) + points.sum(axis=-1)
            if not np.isfinite(log_joint.max()):
                raise DataError(
                    "Expected data that the model can produce, got x with likelihood zero over "
                    "the range of the prior."
                )
            near = points[log_joint > log_joint.max() - 30]
            margin = [axis[1] - axis[0] for axis in axes]
            low, high = near.min(axis=0) - margin, near.max(axis=0) + margin
        cell = margin[0] * margin[1]
        log_evidence = float(np.log(np.exp(log_joint - log_joint.max()).sum() * cell) + log_joint.max())
        return axes, log_joint - log_evidence, log_evidence

    @property
    def log_evidence(self) -> float:
        """log p(x) in nats."""
        return self._grid[2]

    @property
    def _weights(self) -> FloatArray:
        weights = np.exp(self._grid[1])
        return np.asarray(weights / weights.sum())

    @property
    def mean(self) -> FloatArray:
        """Posterior mean, shape (2,), raw space."""
        weights, axes = self._weights, self._grid[0]
        return np.array([weights.sum(axis=1 - i) @ np.exp(axes[i]) for i in range(2)])

    @property
    def sd(self) -> FloatArray:
        """Posterior standard deviation, shape (2,), raw space."""
        weights, axes, mean = self._weights, self._grid[0], self.mean
        return np.array(
            [np.sqrt(weights.sum(axis=1 - i) @ (np.exp(axes[i]) - mean[i]) ** 2) for i in range(2)]
        )

    def log_prob(self, theta: Array) -> FloatArray:
        """Log density in nats at theta of shape (..., 2), raw space, -inf unless positive; shape (...)."""
        return np.asarray(self.model.log_joint(theta, self.x) - self.log_evidence)

    def sample(self, num_samples: int, *, seed: int) -> FloatArray:
        """Draws of theta, shape (num_samples, 2), raw space: uniform points in weighted grid cells."""
        rng = seeding.generator(seed, "exact posterior")
        axes = self._grid[0]
        cells = np.unravel_index(
            rng.choice(self.size**2, size=num_samples, p=self._weights.ravel()), (self.size, self.size)
        )
        places = [
            axis[cell] + rng.uniform(-0.5, 0.5, num_samples) * (axis[1] - axis[0])
            for axis, cell in zip(axes, cells, strict=True)
        ]
        return np.asarray(np.exp(np.stack(places, axis=-1)))
