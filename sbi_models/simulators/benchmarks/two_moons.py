"""Two moons: a posterior of two crescents, far narrower than the prior, with its exact density and draws.

    theta ~ Uniform(-1, 1)^2,   x = p(a, r) + (-|z_1|, z_2)
    z = (theta_1 + theta_2, theta_2 - theta_1) / sqrt(2)
    p(a, r) = (r cos a + 0.25, r sin a),   a ~ Uniform(-pi/2, pi/2),   r ~ Normal(0.1, 0.01)

The density of p at (u + 0.25, v) is that of r at sign(u) sqrt(u^2 + v^2) over pi sqrt(u^2 + v^2). z is theta
rotated, so the posterior is uniform in it: p from its own distribution, |z_1| = p_1 - x_1 (which must not be
negative) with either sign, z_2 = x_2 - p_2, as far as theta stays in the box.

Source: task T.8 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0), after D. Greenberg et al., Automatic posterior transformation, ICML 2019. sbibm's `_likelihood` leaves
out the factor 1/r, and the sampler of its reference draws lets |z_1| be x_1 - p_1 too, which the model rules
out; none of its ten observations is near enough to z_1 = 0 for this to matter.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtri

from sbi_models import seeding
from sbi_models.errors import DataError
from sbi_models.simulators.benchmarks.base import BoxPrior, log_normal_density
from sbi_models.types import Array, FloatArray, Variables

_OFFSET, _RADIUS, _WIDTH = 0.25, 0.1, 0.01
_NODES = (2000, 400)
"""Midpoint nodes of angle and radius in the quadrature of the evidence: log evidence to about 0.001 nats."""


def _rotate(theta: Array) -> tuple[FloatArray, FloatArray]:
    """z_1 and z_2, each of shape (...), of theta of shape (..., 2)."""
    return (theta[..., 0] + theta[..., 1]) / np.sqrt(2), (theta[..., 1] - theta[..., 0]) / np.sqrt(2)


@dataclass(frozen=True)
class TwoMoons(BoxPrior):
    """Two moons model with two parameters; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """theta_1 and theta_2."""
        return ("theta_1", "theta_2")

    @property
    def lower(self) -> FloatArray:
        """-1, shape (2,)."""
        return np.full(2, -1.0)

    @property
    def upper(self) -> FloatArray:
        """1, shape (2,)."""
        return np.full(2, 1.0)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(2,)."""
        return (2,)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 2), raw space, given theta of shape (n, 2)."""
        z1, z2 = _rotate(theta)
        return {"x": _crescent(len(theta), rng) + np.stack([-np.abs(z1), z2], axis=-1)}

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta and x of shape (..., 2); shape (...)."""
        theta, x = np.asarray(theta, dtype=float), np.asarray(x, dtype=float)
        z1, z2 = _rotate(theta)
        u, v = x[..., 0] + np.abs(z1) - _OFFSET, x[..., 1] - z2
        radius = np.maximum(np.hypot(u, v), np.finfo(float).tiny)
        return np.asarray(
            log_normal_density(np.where(u < 0, -radius, radius), _RADIUS, _WIDTH) - np.log(np.pi * radius)
        )

    def posterior(self, x: Array) -> "TwoMoonsPosterior":
        """The exact posterior given one data set, shape (2,) or (1, 2), raw space."""
        return TwoMoonsPosterior(self, self._one_data_set(x))


@dataclass(frozen=True, eq=False)
class TwoMoonsPosterior:
    """The exact posterior given x of shape (2,), raw space."""

    model: TwoMoons
    x: FloatArray

    @cached_property
    def log_evidence(self) -> float:
        """log p(x) in nats by quadrature over angle and radius."""
        levels = [(np.arange(n) + 0.5) / n for n in _NODES]
        angle, radius = np.meshgrid(
            np.pi * (levels[0] - 0.5), _RADIUS + _WIDTH * ndtri(levels[1]), indexing="ij"
        )
        p = np.stack([radius * np.cos(angle) + _OFFSET, radius * np.sin(angle)], axis=-1)
        share = sum(float(self._allowed(p, sign)[1].mean()) for sign in (-1.0, 1.0))
        if not share:
            raise DataError(
                f"Expected data that the prior can produce, got x = {self.x}, which no theta in "
                "the box leads to."
            )
        return float(np.log(share) - np.log(4.0))

    def log_prob(self, theta: Array) -> FloatArray:
        """Log density in nats at theta of shape (..., 2), raw space, -inf outside the box; shape (...)."""
        return self.model.log_joint(theta, self.x) - self.log_evidence

    def sample(self, num_samples: int, *, seed: int) -> FloatArray:
        """Draws of theta, shape (num_samples, 2), raw space, by rejection of draws outside the box."""
        rng = seeding.generator(seed, "exact posterior")
        trials = 2 * num_samples + 64
        draws = np.empty((0, 2))
        while len(draws) < num_samples:
            trials = min(2 * trials, 1_000_000)
            sign = rng.choice([-1.0, 1.0], size=trials)
            theta, allowed = self._allowed(_crescent(trials, rng), sign)
            draws = np.concatenate([draws, theta[allowed]])
            if not allowed.any():
                _ = self.log_evidence  # raises where no theta leads to x
        return draws[:num_samples]

    def _allowed(self, p: FloatArray, sign: Array | float) -> tuple[FloatArray, Array]:
        """theta (..., 2) for p (..., 2) and a sign of z_1, and whether it is in the box (...)."""
        size, z2 = p[..., 0] - self.x[0], self.x[1] - p[..., 1]
        z1 = sign * size
        theta = np.stack([z1 - z2, z1 + z2], axis=-1) / np.sqrt(2)
        return theta, (size >= 0) & (np.abs(theta) <= 1).all(axis=-1)


def _crescent(n: int, rng: np.random.Generator) -> FloatArray:
    """n draws of p, shape (n, 2)."""
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, size=n), rng.normal(_RADIUS, _WIDTH, size=n)
    return np.stack([radius * np.cos(angle) + _OFFSET, radius * np.sin(angle)], axis=-1)
