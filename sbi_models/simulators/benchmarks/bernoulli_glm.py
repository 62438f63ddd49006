"""Bernoulli GLM: bias and temporal filter of a neuron's spikes under a fixed white-noise stimulus.

    theta = (bias, filter_1..9) ~ Normal(0, P^-1)
    spike_t ~ Bernoulli(sigmoid((V theta)_t)),   t = 1..100,   x = V^T spikes

V, shape (100, 10), has a column of ones and the stimulus at lags 0 to 8. P has 0.5 for the bias and F^T F for
the filter, where F = D^2 + diag(sqrt(i / 9)), i = 0..8, and D takes first differences, so that smooth filters
are likely. x, the number of spikes and the spike-triggered sums of the stimulus, is a sufficient statistic:
given it, theta is independent of the spikes.

Source: task T.5 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0); the stimulus is that of sbibm, drawn anew here from its seed (NumPy's legacy generator, 42).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from sbi_models.simulators.benchmarks.base import TractableBenchmark
from sbi_models.types import Array, FloatArray, Variables

STEPS, FILTER = 100, 9


@cache
def design_matrix() -> FloatArray:
    """V, shape (100, 10)."""
    stimulus = np.random.RandomState(42).normal(size=STEPS).astype(np.float32)
    matrix = np.zeros((STEPS, FILTER + 1))
    matrix[:, 0] = 1.0
    for lag in range(FILTER):
        matrix[lag:, lag + 1] = stimulus[: STEPS - lag]
    return matrix


@cache
def prior_precision() -> FloatArray:
    """P, shape (10, 10)."""
    difference = np.eye(FILTER) - np.eye(FILTER, k=-1)
    smooth = difference @ difference + np.diag(np.sqrt(np.arange(FILTER) / FILTER))
    precision = np.zeros((FILTER + 1, FILTER + 1))
    precision[0, 0] = 0.5
    precision[1:, 1:] = smooth.T @ smooth
    return precision


@dataclass(frozen=True)
class BernoulliGLM(TractableBenchmark):
    """Bernoulli GLM whose data x are the ten sufficient statistics; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """The bias and the filter at lags 0 to 8."""
        return ("bias", *(f"filter_{lag}" for lag in range(FILTER)))

    @property
    def lower(self) -> FloatArray:
        """No lower bounds, shape (10,)."""
        return np.full(FILTER + 1, -np.inf)

    @property
    def upper(self) -> FloatArray:
        """No upper bounds, shape (10,)."""
        return np.full(FILTER + 1, np.inf)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(10,)."""
        return (FILTER + 1,)

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, 10), raw space."""
        factor = np.linalg.cholesky(prior_precision())
        return {"theta": np.linalg.solve(factor.T, rng.normal(size=(FILTER + 1, batch_size))).T}

    def spikes(self, theta: Array, rng: np.random.Generator) -> FloatArray:
        """Spikes, 0 or 1, shape (n, 100), given theta of shape (n, 10)."""
        probability = 1 / (1 + np.exp(-(theta @ design_matrix().T)))
        return (rng.uniform(size=probability.shape) < probability).astype(float)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 10), raw space, given theta of shape (n, 10)."""
        return {"x": self.spikes(theta, rng) @ design_matrix()}

    def log_prior(self, theta: Array) -> FloatArray:
        """Log density of the prior in nats at theta of shape (..., 10); shape (...)."""
        precision = prior_precision()
        squares = np.einsum("...i,ij,...j->...", theta, precision, theta)
        return np.asarray(
            (np.linalg.slogdet(precision)[1] - len(precision) * np.log(2 * np.pi) - squares) / 2
        )

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """Log probability in nats of one spike train with statistics x, shape (...).

        theta and x have shape (..., 10).

        It lacks the log of the number of such trains, which does not depend on theta.
        """
        theta = np.asarray(theta, dtype=float)
        return np.asarray(
            (theta * x).sum(axis=-1) - np.logaddexp(0.0, theta @ design_matrix().T).sum(axis=-1)
        )
