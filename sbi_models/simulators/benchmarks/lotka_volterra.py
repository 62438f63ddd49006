"""Lotka-Volterra: four rates of predators and prey from ten noisy counts of each.

    du/dt = alpha u - beta u v,   dv/dt = -gamma v + delta u v,   u(0) = 30, v(0) = 1
    alpha, gamma ~ LogNormal(-0.125, 0.5),   beta, delta ~ LogNormal(-3, 0.5)
    x_k ~ LogNormal(log u(2.1 k), 0.1), x_10+k ~ LogNormal(log v(2.1 k), 0.1),   k = 0..9

u and v are held between 10^-10 and 10^4 in the observation. Solved in log u and log v; with the step below
the logs are off by at most 0.002 over 20 000 draws of the prior, and by 10^-4 for 999 of 1000.

Source: task T.10 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0), whose code takes every 21st of the times 0, 0.1, ..., 20.
"""

from dataclasses import dataclass

import numpy as np

from sbi_models.simulators.benchmarks.base import log_normal_density
from sbi_models.simulators.benchmarks.log_normal_prior import LogNormalPrior
from sbi_models.simulators.benchmarks.ode import runge_kutta
from sbi_models.types import Array, FloatArray, Variables

TIMES = np.arange(10) * 2.1
_NOISE = 0.1
_STEP = 0.0125


def log_populations(rates: Array, log_start: Array, times: FloatArray, *, step: float) -> FloatArray:
    """log u and log v, shape (..., 2, len(times)), given rates (alpha, beta, gamma, delta) and log starts.

    Rates have shape (..., 4), log starts (..., 2).
    """
    rows = np.asarray(rates, dtype=float).reshape(-1, 4)
    alpha, beta, gamma, delta = rows.T

    def rate(logs: FloatArray) -> FloatArray:
        prey, predators = np.exp(logs)
        return np.stack([alpha - beta * predators, delta * prey - gamma])

    start = np.broadcast_to(log_start, (*np.shape(rates)[:-1], 2)).reshape(-1, 2).T
    logs = runge_kutta(rate, np.asarray(start, dtype=float), times, step)
    return np.moveaxis(logs, 0, -1).swapaxes(0, 1).reshape(*np.shape(rates)[:-1], 2, len(times))


@dataclass(frozen=True)
class LotkaVolterra(LogNormalPrior):
    """Lotka-Volterra model with four rates; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """alpha, beta, gamma and delta."""
        return ("alpha", "beta", "gamma", "delta")

    @property
    def log_location(self) -> FloatArray:
        """Prior means of log theta, shape (4,)."""
        return np.array([-0.125, -3.0, -0.125, -3.0])

    @property
    def log_scale(self) -> FloatArray:
        """Prior standard deviations of log theta, shape (4,)."""
        return np.full(4, 0.5)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(20,)."""
        return (2 * len(TIMES),)

    def trajectory(self, theta: Array, step: float = _STEP) -> FloatArray:
        """log u at the ten times, then log v, within bounds, shape (..., 20), for theta (..., 4)."""
        logs = log_populations(theta, np.log([30.0, 1.0]), TIMES, step=step)
        return np.clip(logs, np.log(1e-10), np.log(1e4)).reshape(*np.shape(theta)[:-1], -1)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 20), raw space, given theta of shape (n, 4)."""
        return {"x": np.exp(rng.normal(self.trajectory(theta), _NOISE))}

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta (..., 4) and positive x (..., 20); shape (...)."""
        log_x = np.log(x)
        return np.asarray((log_normal_density(log_x, self.trajectory(theta), _NOISE) - log_x).sum(axis=-1))
