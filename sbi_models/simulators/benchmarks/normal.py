"""Normal observations with unknown mean and log variance, and their exact posterior by quadrature.

    theta = (mu, v):  mu = location + scale * m,  v = 2 log(scale) + w,  m and w ~ Normal(0, 1)
    x_i ~ Normal(mu, exp(v / 2))

For location 0 and scale 1 this is the two-parameter model of most introductions to simulation-based
inference. Given w the posterior of m is normal, so that one integral over w remains; the integrand is smooth
and dies off at both ends, where the trapezoid rule converges faster than any power of the step.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from sbi_models import seeding
from sbi_models.errors import DataError
from sbi_models.simulators.construction import make_simulator
from sbi_models.simulators.simulator import Simulator
from sbi_models.types import Array, FloatArray, Variables

_LOG_VARIANCES = np.linspace(-14.0, 14.0, 8001)
"""Quadrature nodes of w: 14 prior standard deviations to either side."""


@dataclass(frozen=True)
class NormalModel:
    """Normal model with unknown mean and log variance; `location` and `scale` are in the unit of x.

    >>> x = NormalModel().simulator.sample(1, seed=1)["x"]
    >>> NormalModel().posterior(x[0]).sd.round(2).tolist()
    [0.22, 0.32]
    """

    location: float = 0.0
    scale: float = 1.0
    num_observations: int = 20

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta = (mu, log variance), shape (batch_size, 2), raw space."""
        standard = rng.normal(size=(batch_size, 2))
        return {"theta": standard * [self.scale, 1.0] + [self.location, 2 * np.log(self.scale)]}

    def prior_score(self, theta: Array) -> FloatArray:
        """d log p(theta) / d theta of the prior, shape (m, 2), raw space, at theta of that shape."""
        center = np.array([self.location, 2 * np.log(self.scale)])
        return np.asarray((center - np.asarray(theta, dtype=float)) / [self.scale**2, 1.0])

    def log_joint(self, theta: Array, x: Array) -> FloatArray:
        """log p(theta) + log p(x | theta) in nats for theta (..., 2) and x (..., n, 1), broadcast."""
        theta, values = np.asarray(theta, dtype=float), np.asarray(x, dtype=float)[..., 0]
        standard = (theta - [self.location, 2 * np.log(self.scale)]) / [self.scale, 1.0]
        squares = (values - theta[..., :1]) ** 2 / np.exp(theta[..., 1:])
        prior = -(standard**2).sum(axis=-1) / 2 - np.log(self.scale) - np.log(2 * np.pi)
        return np.asarray(prior - (squares + theta[..., 1:] + np.log(2 * np.pi)).sum(axis=-1) / 2)

    def likelihood(self, theta: Array, batch_size: int, rng: np.random.Generator) -> Variables:
        """x, shape (batch_size, num_observations, 1), raw space, given theta of shape (batch_size, 2)."""
        noise = rng.normal(size=(batch_size, self.num_observations, 1))
        return {"x": theta[:, None, :1] + np.exp(theta[:, None, 1:] / 2) * noise}

    @property
    def simulator(self) -> Simulator:
        """The batched simulator of theta and x."""
        return make_simulator([self.prior, self.likelihood], is_batched=True)

    def posterior(self, x: Array) -> "NormalPosterior":
        """The exact posterior given one data set, shape (n,) or (n, 1) with any n, raw space."""
        values = np.asarray(x, dtype=float).reshape(-1)
        if not values.size or not np.isfinite(values).all():
            raise DataError(
                f"Expected at least one finite observation, got an array of shape {np.shape(x)} "
                "with NaN, inf or nothing in it."
            )
        return NormalPosterior(self.location, self.scale, (values - self.location) / self.scale)


@dataclass(frozen=True, eq=False)
class NormalPosterior:
    """Exact posterior of theta = (mu, v) in raw space.

    `standard_x` holds the observations as (x - location) / scale, shape (n,).
    """

    location: float
    scale: float
    standard_x: FloatArray

    @cached_property
    def _weights(self) -> FloatArray:
        """Posterior probability of each quadrature node of w."""
        log_p = self._log_marginal(_LOG_VARIANCES) - _LOG_VARIANCES**2 / 2
        p = np.exp(log_p - log_p.max())
        return np.asarray(p / p.sum())

    def _log_marginal(self, w: FloatArray) -> FloatArray:
        """log p(x | w) with m integrated out: x ~ Normal(0, exp(w) I + 1 1^T).

        The determinant is exp((n-1) / w) (exp(w) + n).
        """
        x, n, variance = self.standard_x, len(self.standard_x), np.exp(w)
        squares = np.sum((x - x.mean()) ** 2) / variance + n * x.mean() ** 2 / (variance + n)
        return np.asarray(-((n - 1) * w + np.log(variance + n) + squares + n * np.log(2 * np.pi)) / 2)

    def _mean_given(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of m given w (and x)."""
        n, variance = len(self.standard_x), np.exp(w)
        return self.standard_x.sum() / (variance + n), np.sqrt(variance / (variance + n))

    @property
    def mean(self) -> FloatArray:
        """Posterior mean of (mu, v), shape (2,)."""
        m, _ = self._mean_given(_LOG_VARIANCES)
        return self._raw(np.array([self._weights @ m, self._weights @ _LOG_VARIANCES]))

    @property
    def sd(self) -> FloatArray:
        """Posterior standard deviation of (mu, v), shape (2,)."""
        m, s = self._mean_given(_LOG_VARIANCES)
        first = self._weights @ (s**2 + m**2) - (self._weights @ m) ** 2
        second = self._weights @ _LOG_VARIANCES**2 - (self._weights @ _LOG_VARIANCES) ** 2
        return np.sqrt([first, second]) * [self.scale, 1.0]

    @property
    def spread(self) -> tuple[float, float]:
        """Posterior mean and sd of exp(v / 2), the sd of one observation, in the unit of x."""
        spread = self.scale * np.exp(_LOG_VARIANCES / 2)
        mean = self._weights @ spread
        return float(mean), float(np.sqrt(self._weights @ (spread - mean) ** 2))

    def quantiles(self, levels: Array) -> FloatArray:
        """Marginal quantiles of (mu, v) at the levels in (0, 1), shape (len(levels), 2)."""
        m, s = self._mean_given(_LOG_VARIANCES)
        cumulative = np.cumsum(self._weights) - self._weights / 2
        rows = []
        for level in np.atleast_1d(levels):
            first = brentq(
                lambda value, level=level: self._weights @ ndtr((value - m) / s) - level,
                -15.0,
                15.0,
                xtol=1e-12,
            )
            rows.append([first, np.interp(level, cumulative, _LOG_VARIANCES)])
        return self._raw(np.array(rows))

    def mean_density(self, mu: Array) -> FloatArray:
        """Marginal posterior density of mu at points of any shape (k,), in one over the unit of x."""
        m, s = self._mean_given(_LOG_VARIANCES)
        keep = self._weights > 1e-14
        standard = (np.asarray(mu, dtype=float)[:, None] - self.location) / self.scale
        densities = np.exp(-(((standard - m[keep]) / s[keep]) ** 2) / 2) / (s[keep] * np.sqrt(2 * np.pi))
        return np.asarray(densities @ self._weights[keep] / self.scale)

    def log_variance_density(self, v: Array) -> FloatArray:
        """Marginal posterior density of the log variance v at points of shape (k,)."""
        step = _LOG_VARIANCES[1] - _LOG_VARIANCES[0]
        return np.asarray(
            np.interp(
                np.asarray(v, dtype=float) - 2 * np.log(self.scale), _LOG_VARIANCES, self._weights / step
            )
        )

    def log_prob(self, theta: Array) -> FloatArray:
        """Joint log density in nats at theta of shape (k, 2), raw space; shape (k,)."""
        theta = np.asarray(theta, dtype=float)
        w = theta[:, 1] - 2 * np.log(self.scale)
        m, s = self._mean_given(w)
        step = _LOG_VARIANCES[1] - _LOG_VARIANCES[0]
        grid = self._log_marginal(_LOG_VARIANCES) - _LOG_VARIANCES**2 / 2
        log_evidence = grid.max() + np.log(np.exp(grid - grid.max()).sum() * step)
        conditional = -((((theta[:, 0] - self.location) / self.scale - m) / s) ** 2) / 2 - np.log(
            s * np.sqrt(2 * np.pi)
        )
        return np.asarray(conditional - np.log(self.scale) + self._log_marginal(w) - w**2 / 2 - log_evidence)

    def sample(self, num_samples: int, *, seed: int) -> FloatArray:
        """Draws of theta, shape (num_samples, 2), raw space."""
        rng = seeding.generator(seed, "exact posterior")
        edges = np.concatenate([[0.0], np.cumsum(self._weights)])
        halves = np.concatenate(
            [_LOG_VARIANCES - (_LOG_VARIANCES[1] - _LOG_VARIANCES[0]) / 2, [_LOG_VARIANCES[-1]]]
        )
        w = np.interp(rng.uniform(size=num_samples), edges, halves)
        m, s = self._mean_given(w)
        return self._raw(np.stack([rng.normal(m, s), w], axis=-1))

    def _raw(self, standard: FloatArray) -> FloatArray:
        return np.asarray(standard * [self.scale, 1.0] + [self.location, 2 * np.log(self.scale)])
