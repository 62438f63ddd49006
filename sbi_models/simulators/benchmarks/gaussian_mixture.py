"""Gaussian mixture: common mean of a broad and a narrow Gaussian in two dimensions, with its exact posterior.

    theta ~ Uniform(-10, 10)^2,   x ~ 0.5 Normal(theta, I) + 0.5 Normal(theta, 0.1^2 I)

By symmetry of the Gaussian in theta and x the posterior is a mixture of the two Gaussians around x, truncated
to the box of the prior; each one's weight is 0.5 times its mass in the box.

Source: task T.7 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0), after S. A. Sisson et al., Sequential Monte Carlo without likelihoods, PNAS 104 (2007).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from sbi_models import seeding
from sbi_models.simulators.benchmarks.base import BoxPrior, log_normal_density
from sbi_models.simulators.benchmarks.gaussian_linear_uniform import TruncatedNormalPosterior
from sbi_models.types import Array, FloatArray, Variables

_SCALES = np.array([1.0, 0.1])
"""Standard deviations of the two components, each of weight one half."""


@dataclass(frozen=True)
class GaussianMixture(BoxPrior):
    """Gaussian mixture model with the half width of the prior's box; see the module for the formulas."""

    half_width: float = 10.0

    @property
    def names(self) -> tuple[str, ...]:
        """theta_1 and theta_2."""
        return ("theta_1", "theta_2")

    @property
    def lower(self) -> FloatArray:
        """-half_width, shape (2,)."""
        return np.full(2, -self.half_width)

    @property
    def upper(self) -> FloatArray:
        """half_width, shape (2,)."""
        return np.full(2, self.half_width)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(2,)."""
        return (2,)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 2), raw space, given theta of shape (n, 2)."""
        scale = _SCALES[rng.integers(2, size=(len(theta), 1))]
        return {"x": theta + scale * rng.normal(size=theta.shape)}

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta and x of shape (..., 2); shape (...)."""
        parts = [log_normal_density(x, theta, scale).sum(axis=-1) for scale in _SCALES]
        return np.asarray(np.logaddexp(*parts) - np.log(2))

    def posterior(self, x: Array) -> "GaussianMixturePosterior":
        """The exact posterior given one data set, shape (2,) or (1, 2), raw space."""
        return GaussianMixturePosterior(self, self._one_data_set(x))


@dataclass(frozen=True, eq=False)
class GaussianMixturePosterior:
    """The exact posterior given x of shape (2,), raw space."""

    model: GaussianMixture
    x: FloatArray

    @property
    def _components(self) -> list[TruncatedNormalPosterior]:
        return [
            TruncatedNormalPosterior(self.x, scale, self.model.lower, self.model.upper) for scale in _SCALES
        ]

    @property
    def weights(self) -> FloatArray:
        """Posterior probability of the broad and the narrow component, shape (2,)."""
        # The mass of a component in the box is the ratio of its density without and with truncation, at any
        # point of the box.
        point = np.clip(self.x, self.model.lower, self.model.upper)
        log_mass = [
            log_normal_density(point, self.x, part.scale).sum() - part.log_prob(point)
            for part in self._components
        ]
        return np.asarray(np.exp(log_mass - logsumexp(log_mass)))

    @property
    def mean(self) -> FloatArray:
        """Posterior mean, shape (2,)."""
        return np.asarray(self.weights @ np.stack([part.mean for part in self._components]))

    @property
    def sd(self) -> FloatArray:
        """Posterior standard deviation, shape (2,)."""
        squares = np.stack([part.sd**2 + part.mean**2 for part in self._components])
        return np.asarray(np.sqrt(self.weights @ squares - self.mean**2))

    def log_prob(self, theta: Array) -> FloatArray:
        """Log density in nats at theta of shape (..., 2), raw space, -inf outside the box; shape (...)."""
        with np.errstate(divide="ignore"):
            parts = [
                np.log(weight) + part.log_prob(theta)
                for weight, part in zip(self.weights, self._components, strict=True)
            ]
        return np.asarray(np.logaddexp(*parts))

    def sample(self, num_samples: int, *, seed: int) -> FloatArray:
        """Draws of theta, shape (num_samples, 2), raw space."""
        broad, narrow = (
            part.sample(num_samples, seed=seeding.derive(seed, i)) for i, part in enumerate(self._components)
        )
        is_narrow = seeding.generator(seed, "component").uniform(size=(num_samples, 1)) < self.weights[1]
        return np.where(is_narrow, narrow, broad)
