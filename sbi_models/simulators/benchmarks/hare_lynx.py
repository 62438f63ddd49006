"""Hares and lynxes: a predator-prey model of the pelts that the Hudson's Bay Company bought, 1900 to 1920.

    du/dt = (alpha - beta v) u,   dv/dt = (-gamma + delta u) v
    u(0) = u0, v(0) = v0,   t in years since 1900
    alpha, gamma ~ Normal(1, 0.5), beta, delta ~ Normal(0.05, 0.05), all > 0
    u0, v0 ~ LogNormal(log 10, 1),   sigma_u, sigma_v ~ LogNormal(-1, 1)
    hare_k ~ LogNormal(log u(k), sigma_u),   lynx_k ~ LogNormal(log v(k), sigma_v)
    k = 0..20, in thousands of pelts

To stay within single precision for every draw of this broad prior, u and v are held between 10^-10 and 10^10
and observations between 10^-30 and 10^30; data come nowhere near. Solved in log u and log v; with the step
below the logs are off by at most 0.001 over 20 000 draws of the prior.

Sources. Data: C. G. Hewitt, The conservation of the wild life of Canada (1921), and P. Howard, Modeling
basics (2009). Model: B. Carpenter, Predator-prey population dynamics, Stan case study (2018). Reference draws
(2000, by Hamiltonian Monte Carlo): posteriordb, posterior `hudson_lynx_hare-lotka_volterra`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from sbi_models.simulators.benchmarks.base import TractableBenchmark, log_normal_density
from sbi_models.simulators.benchmarks.lotka_volterra import log_populations
from sbi_models.types import Array, FloatArray, Variables

DATA = Path(__file__).resolve().parents[2] / "data" / "hudson_lynx_hare.csv"
"""Columns year (1900..1920), hare and lynx (thousands of pelts)."""

REFERENCE = DATA.with_name("hudson_lynx_hare_reference_posterior.csv")
"""Draws of the posterior given the data; columns are the parameters' names."""

TIMES = np.arange(21.0)
_STEP = 0.0125
_RATE_MEAN, _RATE_SD = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
_LOG_MEAN, _LOG_SD = np.array([np.log(10.0), np.log(10.0), -1.0, -1.0]), np.ones(4)


@dataclass(frozen=True)
class HareLynx(TractableBenchmark):
    """Predator-prey model with eight parameters; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """The four rates, the two starts, and the two scales of the noise."""
        return ("alpha", "beta", "gamma", "delta", "u0", "v0", "sigma_u", "sigma_v")

    @property
    def lower(self) -> FloatArray:
        """Zero, shape (8,)."""
        return np.zeros(8)

    @property
    def upper(self) -> FloatArray:
        """No upper bounds, shape (8,)."""
        return np.full(8, np.inf)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(21, 2): years by hare and lynx."""
        return (len(TIMES), 2)

    @property
    def observed(self) -> FloatArray:
        """The pelts bought, shape (21, 2)."""
        return np.loadtxt(DATA, delimiter=",", skiprows=1)[:, 1:]

    @property
    def reference_draws(self) -> FloatArray:
        """2000 draws of the posterior given the pelts bought, shape (2000, 8)."""
        return np.loadtxt(REFERENCE, delimiter=",", skiprows=1)

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, 8), raw space."""
        levels = rng.uniform(ndtr(-_RATE_MEAN / _RATE_SD), 1.0, size=(batch_size, 4))
        rates = _RATE_MEAN + _RATE_SD * ndtri(levels)
        return {
            "theta": np.concatenate(
                [rates, np.exp(rng.normal(_LOG_MEAN, _LOG_SD, size=(batch_size, 4)))], axis=1
            )
        }

    def trajectory(self, theta: Array, step: float = _STEP) -> FloatArray:
        """log u and log v by year, within the bounds, shape (..., 21, 2), for theta of shape (..., 8)."""
        logs = log_populations(theta[..., :4], np.log(theta[..., 4:6]), TIMES, step=step)
        return np.clip(logs.swapaxes(-1, -2), np.log(1e-10), np.log(1e10))

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 21, 2), thousands of pelts, given theta of shape (n, 8)."""
        logs = rng.normal(self.trajectory(theta), theta[:, None, 6:])
        return {"x": np.exp(np.clip(logs, np.log(1e-30), np.log(1e30)))}

    def log_prior(self, theta: Array) -> FloatArray:
        """Log prior density in nats at theta of shape (..., 8), -inf unless all are positive; shape (...)."""
        theta = np.asarray(theta, dtype=float)
        positive = self._within(theta)
        safe = np.where(positive[..., None], theta, 1.0)
        rates = log_normal_density(safe[..., :4], _RATE_MEAN, _RATE_SD) - log_ndtr(_RATE_MEAN / _RATE_SD)
        logs = np.log(safe[..., 4:])
        return np.where(
            positive, (rates + log_normal_density(logs, _LOG_MEAN, _LOG_SD) - logs).sum(axis=-1), -np.inf
        )

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta (..., 8) and positive x (..., 21, 2); shape (...)."""
        theta, log_x = np.asarray(theta, dtype=float), np.log(x)
        density = log_normal_density(log_x, self.trajectory(theta), theta[..., None, 6:]) - log_x
        return np.asarray(density.sum(axis=(-1, -2)))
