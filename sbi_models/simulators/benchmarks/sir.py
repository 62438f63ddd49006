"""SIR: contact and recovery rate of an epidemic in a million people, from ten tests of a thousand people.

    dS/dt = -beta S I / N,   dI/dt = beta S I / N - gamma I,   N = 10^6, one infected at t = 0
    beta ~ LogNormal(log 0.4, 0.5),   gamma ~ LogNormal(log 0.125, 0.2)
    x_k ~ Binomial(1000, I(17 k) / N),   k = 0..9, t in days

Solved in log S and log I, which stay finite; with the step below the share I / N is off by at most 10^-5 over
20 000 draws of the prior.

Source: task T.9 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0), whose code takes every 17th day from day 0.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from sbi_models.simulators.benchmarks.log_normal_prior import LogGridPosterior, LogNormalPrior
from sbi_models.simulators.benchmarks.ode import runge_kutta
from sbi_models.types import Array, FloatArray, Variables

TIMES = np.arange(10) * 17.0
_POPULATION, _INFECTED, _TESTS = 1e6, 1.0, 1000
_STEP = 0.25


def shares(rates: Array, times: FloatArray, *, infected: float, step: float) -> FloatArray:
    """I(t) / N, shape (..., len(times)), given (beta, gamma), shape (..., 2), and the share at times[0]."""
    rows = np.asarray(rates, dtype=float).reshape(-1, 2)
    beta, gamma = rows.T

    def rate(logs: FloatArray) -> FloatArray:
        susceptible, sick = np.exp(logs)
        return np.stack([-beta * sick, beta * susceptible - gamma])

    start = np.log(np.array([[1 - infected], [infected]])) + np.zeros((1, len(rows)))
    logs = runge_kutta(rate, start, times, step)[:, 1]
    return np.clip(np.exp(logs.T), 0.0, 1.0).reshape(*np.shape(rates)[:-1], len(times))


@dataclass(frozen=True)
class SIR(LogNormalPrior):
    """SIR model with two rates; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """beta and gamma."""
        return ("beta", "gamma")

    @property
    def log_location(self) -> FloatArray:
        """Prior means of log theta, shape (2,)."""
        return np.log([0.4, 0.125])

    @property
    def log_scale(self) -> FloatArray:
        """Prior standard deviations of log theta, shape (2,)."""
        return np.array([0.5, 0.2])

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(10,)."""
        return (len(TIMES),)

    def trajectory(self, theta: Array, step: float = _STEP) -> FloatArray:
        """I / N at the ten times, shape (..., 10), for theta of shape (..., 2)."""
        return shares(theta, TIMES, infected=_INFECTED / _POPULATION, step=step)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, positive tests, shape (n, 10), given theta of shape (n, 2)."""
        return {"x": rng.binomial(_TESTS, self.trajectory(theta)).astype(float)}

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta of shape (..., 2) and x of shape (..., 10); shape (...)."""
        x, share = np.asarray(x, dtype=float), self.trajectory(theta)
        ways = gammaln(_TESTS + 1) - gammaln(x + 1) - gammaln(_TESTS - x + 1)
        return np.asarray((ways + xlogy(x, share) + xlog1py(_TESTS - x, -share)).sum(axis=-1))

    def posterior(self, x: Array) -> LogGridPosterior:
        """The posterior given one data set, shape (10,) or (1, 10), on a grid."""
        return LogGridPosterior(self, self._one_data_set(x))
