"""Base classes of benchmark models: prior, likelihood, their densities where tractable, and a simulator.

To add a benchmark: a file with a frozen dataclass that inherits from `Benchmark` (or `TractableBenchmark`, if
the likelihood can be computed), its constants with their source, and an entry in `BENCHMARKS`; the tests of
all benchmarks take it from there.
"""

from abc import ABC, abstractmethod

import numpy as np

from sbi_models.errors import DataError
from sbi_models.simulators.construction import make_simulator
from sbi_models.simulators.simulator import Simulator
from sbi_models.types import Array, FloatArray, Variables


class Benchmark(ABC):
    """Benchmark model: prior of theta, shape (n, d), and likelihood of x, shape (n, ...), in raw space.

    >>> from sbi_models.simulators.benchmarks import BENCHMARKS
    >>> model = BENCHMARKS["two_moons"]
    >>> {name: value.shape for name, value in model.simulator.sample(5, seed=1).items()}
    {'theta': (5, 2), 'x': (5, 2)}
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the d parameters."""

    @property
    @abstractmethod
    def lower(self) -> FloatArray:
        """Lower bounds of the prior's support, shape (d,), -inf where there is none."""

    @property
    @abstractmethod
    def upper(self) -> FloatArray:
        """Upper bounds of the prior's support, shape (d,), inf where there is none."""

    @property
    @abstractmethod
    def x_shape(self) -> tuple[int, ...]:
        """Shape of one simulation's x."""

    @abstractmethod
    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """Draw theta from the prior, shape (batch_size, d), raw space."""

    @abstractmethod
    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """Draw x, shape (n, *x_shape), raw space, given theta of shape (n, d)."""

    @abstractmethod
    def log_prior(self, theta: Array) -> FloatArray:
        """Log prior density in nats at theta of shape (..., d), -inf outside the support; shape (...)."""

    @property
    def simulator(self) -> Simulator:
        """The batched simulator of theta and x."""
        return make_simulator([self.prior, self.likelihood], is_batched=True)

    def _within(self, theta: Array) -> Array:
        """True where theta, shape (..., d), lies between the bounds, shape (...)."""
        return np.asarray(((theta > self.lower) & (theta < self.upper)).all(axis=-1))

    def _one_data_set(self, x: Array) -> FloatArray:
        """One observed x as floats of shape x_shape; a leading axis of length 1 is dropped."""
        values = np.asarray(x, dtype=float)
        if values.shape == (1, *self.x_shape):
            values = values[0]
        if values.shape != self.x_shape or not np.isfinite(values).all():
            raise DataError(
                f"Expected one finite data set x of shape {self.x_shape}, got an array of shape "
                f"{np.shape(x)}."
            )
        return values


class TractableBenchmark(Benchmark):
    """A benchmark whose likelihood can be computed, so that its posterior is known up to a constant.

    >>> from sbi_models.simulators.benchmarks import GaussianLinear
    >>> model = GaussianLinear()
    >>> model.log_joint(np.zeros((3, 10)), np.zeros(10)).shape
    (3,)
    """

    @abstractmethod
    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta of shape (..., d) and x of shape (..., *x_shape).

        Leading axes broadcast.
        """

    def log_joint(self, theta: Array, x: Array) -> FloatArray:
        """log p(theta) + log p(x | theta) in nats, the unnormalized log posterior; -inf outside the prior."""
        theta = np.asarray(theta, dtype=float)
        inside = self._within(theta)
        safe = np.where(inside[..., None], theta, self._inside_point)
        return np.asarray(np.where(inside, self.log_prior(theta) + self.log_likelihood(safe, x), -np.inf))

    @property
    def _inside_point(self) -> FloatArray:
        """A point of the support, used in place of points outside, where the likelihood may be undefined."""
        low = np.where(np.isfinite(self.lower), self.lower, np.minimum(self.upper, 1.0) - 2.0)
        high = np.where(np.isfinite(self.upper), self.upper, np.maximum(low, -1.0) + 2.0)
        return np.asarray((low + high) / 2)


class BoxPrior(TractableBenchmark):
    """Benchmarks with a prior uniform in the box between `lower` and `upper`."""

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, d), raw space."""
        return {"theta": rng.uniform(self.lower, self.upper, size=(batch_size, len(self.lower)))}

    def log_prior(self, theta: Array) -> FloatArray:
        """Log density of the prior in nats at theta of shape (..., d); shape (...)."""
        return np.where(self._within(theta), -np.log(self.upper - self.lower).sum(), -np.inf)


def log_normal_density(value: Array, mean: Array | float, sd: Array | float) -> FloatArray:
    """Log density in nats of Normal(mean, sd), elementwise."""
    return np.asarray(-(((value - mean) / sd) ** 2) / 2 - np.log(sd) - np.log(2 * np.pi) / 2)
