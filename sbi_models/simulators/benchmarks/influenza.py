"""Influenza at an English boarding school, 1978: an SIR model of 763 boys with overdispersed counts in bed.

    dS/dt = -beta S I / N,   dI/dt = beta S I / N - gamma I,   N = 763, one infected at t = 0, t in days
    beta ~ Normal(2, 1), gamma ~ Normal(0.4, 0.5), both > 0,   1 / phi ~ Exponential(rate 5)
    in_bed_k ~ NegativeBinomial(mean I(k), variance I(k) + I(k)^2 / phi),   k = 1..14

theta = (beta, gamma, 1 / phi). Solved in log S and log I; with the step below log I is off by at most 10^-5
over 20 000 draws of the prior.

Source of the data: British Medical Journal, 4 March 1978, p. 587; of the model and its posterior (beta 1.73
(0.05), gamma 0.54 (0.05), R0 = beta / gamma 3.2 (0.3)): L. Grinsztajn et al., Bayesian workflow for disease
transmission modeling in Stan, Statistics in Medicine (2021).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import gammaln, log_ndtr, ndtr, ndtri

from sbi_models.simulators.benchmarks.base import TractableBenchmark, log_normal_density
from sbi_models.simulators.benchmarks.sir import shares
from sbi_models.types import Array, FloatArray, Variables

DATA = Path(__file__).resolve().parents[2] / "data" / "influenza_boarding_school.csv"
"""Columns day (1..14), in_bed (boys)."""

BOYS = 763
TIMES = np.arange(15.0)
_STEP = 0.05
_RATE_MEAN, _RATE_SD = np.array([2.0, 0.4]), np.array([1.0, 0.5])
_DISPERSION_RATE = 5.0


@dataclass(frozen=True)
class Influenza(TractableBenchmark):
    """SIR model with overdispersed counts; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """beta, gamma and 1 / phi."""
        return ("beta", "gamma", "inverse_phi")

    @property
    def lower(self) -> FloatArray:
        """Zero, shape (3,)."""
        return np.zeros(3)

    @property
    def upper(self) -> FloatArray:
        """No upper bounds, shape (3,)."""
        return np.full(3, np.inf)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(14,)."""
        return (len(TIMES) - 1,)

    @property
    def observed(self) -> FloatArray:
        """Boys in bed on days 1 to 14, shape (14,)."""
        return np.loadtxt(DATA, delimiter=",", skiprows=1)[:, 1]

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, 3), raw space."""
        levels = rng.uniform(ndtr(-_RATE_MEAN / _RATE_SD), 1.0, size=(batch_size, 2))
        dispersion = rng.exponential(1 / _DISPERSION_RATE, size=(batch_size, 1))
        return {"theta": np.concatenate([_RATE_MEAN + _RATE_SD * ndtri(levels), dispersion], axis=1)}

    def trajectory(self, theta: Array, step: float = _STEP) -> FloatArray:
        """I on days 1 to 14, shape (..., 14), for theta of shape (..., 3)."""
        return BOYS * shares(theta[..., :2], TIMES, infected=1 / BOYS, step=step)[..., 1:]

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """Boys in bed x, shape (n, 14), given theta, shape (n, 3): Poisson counts with gamma means."""
        inverse = np.maximum(theta[:, 2:], 1e-12)
        mean = self.trajectory(theta) * rng.gamma(1 / inverse, inverse, size=(len(theta), *self.x_shape))
        return {"x": rng.poisson(mean).astype(float)}

    def log_prior(self, theta: Array) -> FloatArray:
        """Log prior density in nats at theta of shape (..., 3), -inf unless all are positive; shape (...)."""
        theta = np.asarray(theta, dtype=float)
        rates = log_normal_density(theta[..., :2], _RATE_MEAN, _RATE_SD) - log_ndtr(_RATE_MEAN / _RATE_SD)
        density = rates.sum(axis=-1) + np.log(_DISPERSION_RATE) - _DISPERSION_RATE * theta[..., 2]
        return np.where(self._within(theta), density, -np.inf)

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta of shape (..., 3) and x of shape (..., 14); shape (...)."""
        theta, x = np.asarray(theta, dtype=float), np.asarray(x, dtype=float)
        mean, inverse = self.trajectory(theta), np.maximum(theta[..., 2:], 1e-9)
        phi = 1 / inverse
        odds = mean * inverse
        ways = gammaln(x + phi) - gammaln(phi) - gammaln(x + 1)
        return np.asarray((ways + x * (np.log(odds) - np.log1p(odds)) - phi * np.log1p(odds)).sum(axis=-1))
