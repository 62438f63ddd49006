"""Inverse kinematics: height and angles of a robot arm that put its hand at a given place in the plane.

    theta_1 ~ Normal(0, 0.25),   theta_2, theta_3, theta_4 ~ Normal(0, 0.5)
    a = theta_2,  b = a + theta_3,  c = b + theta_4,   lengths (1/2, 1/2, 1)
    x_1 = theta_1 + sin(a) / 2 + sin(b) / 2 + sin(c),   x_2 = cos(a) / 2 + cos(b) / 2 + cos(c)

There is no noise: the posterior lies on a surface. With theta_1 solved for, it is the surface g(a, b, c) =
x_2, on which the posterior has density prior / |grad g|. Draws of it: two angles from the prior, the third
solved for, which weighs the point by the third angle's conditional prior times |g_k| / |grad g|^2, if each of
the three angles takes its turn as the third and shares a point with the others in the proportions g_k^2 /
|grad g|^2. These weights are bounded but where the arm is stretched out along one line.

Source: J. Kruse et al., Benchmarking invertible architectures on inverse problems, arXiv:2101.10763 (2021),
after L. Ardizzone et al., Analyzing inverse problems with invertible neural networks, ICLR 2019.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from sbi_models import seeding
from sbi_models.errors import DataError
from sbi_models.simulators.benchmarks.base import Benchmark, log_normal_density
from sbi_models.types import Array, FloatArray, Variables

SCALES = np.array([0.25, 0.5, 0.5, 0.5])
LENGTHS = np.array([0.5, 0.5, 1.0])


@dataclass(frozen=True)
class InverseKinematics(Benchmark):
    """Robot arm with a height and three angles; see the module for the formulas."""

    @property
    def names(self) -> tuple[str, ...]:
        """The height and the three angles."""
        return ("height", "angle_1", "angle_2", "angle_3")

    @property
    def lower(self) -> FloatArray:
        """No lower bounds, shape (4,)."""
        return np.full(4, -np.inf)

    @property
    def upper(self) -> FloatArray:
        """No upper bounds, shape (4,)."""
        return np.full(4, np.inf)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(2,)."""
        return (2,)

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, 4), raw space."""
        return {"theta": rng.normal(0.0, SCALES, size=(batch_size, 4))}

    def hand(self, theta: Array) -> FloatArray:
        """Where theta, shape (..., 4), puts the hand, shape (..., 2)."""
        directions = np.cumsum(theta[..., 1:], axis=-1)
        return np.stack([theta[..., 0] + np.sin(directions) @ LENGTHS, np.cos(directions) @ LENGTHS], axis=-1)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 2), raw space, given theta of shape (n, 4); there is no noise to draw."""
        return {"x": self.hand(theta)}

    def log_prior(self, theta: Array) -> FloatArray:
        """Log density of the prior in nats at theta of shape (..., 4); shape (...)."""
        return np.asarray(log_normal_density(theta, 0.0, SCALES).sum(axis=-1))

    def posterior(self, x: Array) -> "InverseKinematicsPosterior":
        """The posterior given one place of the hand, shape (2,) or (1, 2)."""
        return InverseKinematicsPosterior(self, self._one_data_set(x))


@dataclass(frozen=True, eq=False)
class InverseKinematicsPosterior:
    """Weighted and plain draws of the posterior given x of shape (2,): a surface without a density."""

    model: InverseKinematics
    x: FloatArray

    def weighted(self, num_proposals: int, *, seed: int) -> tuple[FloatArray, FloatArray]:
        """theta, shape (k, 4), each of which puts the hand at x, and weights, shape (k,), that sum to one."""
        theta, log_weights = self._proposals(num_proposals, seed)
        weights = np.exp(log_weights - log_weights.max())
        return theta, weights / weights.sum()

    def log_evidence(self, num_proposals: int, *, seed: int) -> float:
        """Estimate of log p(x) in nats from that many proposals."""
        return float(logsumexp(self._proposals(num_proposals, seed)[1]) + np.log(6 / num_proposals))

    def _proposals(self, num_proposals: int, seed: int) -> tuple[FloatArray, FloatArray]:
        """theta and log weights of the proposals of all three kinds that reach x."""
        rng = seeding.generator(seed, "exact posterior")
        parts = [self._chart(third, rng.normal(0.0, 0.5, size=(num_proposals, 3)), rng) for third in range(3)]
        theta = np.concatenate([part[0] for part in parts])
        log_weights = np.concatenate([part[1] for part in parts])
        if not len(theta) or not np.isfinite(log_weights.max()):
            raise DataError(f"Expected a place within the arm's reach, got x = {self.x}.")
        return theta, log_weights

    def sample(self, num_samples: int, *, seed: int, proposals_per_sample: int = 50) -> FloatArray:
        """Draws of theta, shape (num_samples, 4), by resampling weighted draws; exact for many proposals."""
        theta, weights = self.weighted(num_samples * proposals_per_sample, seed=seed)
        rng = seeding.generator(seed, "exact posterior, resampling")
        return theta[rng.choice(len(theta), size=num_samples, p=weights)]

    def _chart(
        self, third: int, angles: FloatArray, rng: np.random.Generator
    ) -> tuple[FloatArray, FloatArray]:
        """theta and log weights of proposals in which the direction number `third` is solved for."""
        directions = np.cumsum(angles, axis=-1)
        rest = np.delete(np.arange(3), third)
        cosine = (self.x[1] - np.cos(directions[:, rest]) @ LENGTHS[rest]) / LENGTHS[third]
        reachable = np.abs(cosine) < 1
        proposed = directions[reachable]
        solved = proposed.copy()
        # Each solution +-arccos + 2 pi k is proposed with probability 1/6; |k| > 1 is ten prior standard
        # deviations away.
        sign, turn = rng.choice([-1.0, 1.0], size=len(proposed)), rng.integers(-1, 2, size=len(proposed))
        solved[:, third] = sign * np.arccos(cosine[reachable]) + 2 * np.pi * turn
        slopes = LENGTHS * np.sin(solved)
        theta = np.empty((len(solved), 4))
        theta[:, 0] = self.x[0] - slopes.sum(axis=1)
        theta[:, 1:] = np.diff(solved, axis=1, prepend=0.0)
        log_share = np.log(np.abs(slopes[:, third])) - np.log((slopes**2).sum(axis=1))
        return theta, self.model.log_prior(theta) - self._log_proposal(proposed, rest) + log_share

    def _log_proposal(self, directions: FloatArray, rest: Array) -> FloatArray:
        """Log proposal density of the two free directions.

        Proposals are the prior, and random walks of steps with variance 1/4.
        """
        first, second = directions[:, rest[0]], directions[:, rest[1]]
        steps = rest + 1
        start = log_normal_density(first, 0.0, 0.5 * np.sqrt(steps[0]))
        return start + log_normal_density(second - first, 0.0, 0.5 * np.sqrt(steps[1] - steps[0]))
