"""Bernoulli GLM raw: the spike train itself as data; the posterior is that given its sufficient statistics.

Source: task T.6 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0).
"""

from dataclasses import dataclass

import numpy as np

from sbi_models.simulators.benchmarks.bernoulli_glm import STEPS, BernoulliGLM, design_matrix
from sbi_models.types import Array, FloatArray, Variables


@dataclass(frozen=True)
class BernoulliGLMRaw(BernoulliGLM):
    """The Bernoulli GLM; x are the spikes, 0 or 1, in 100 steps of time."""

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(100,)."""
        return (STEPS,)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 100), raw space, given theta of shape (n, 10)."""
        return {"x": self.spikes(theta, rng)}

    def statistics(self, x: Array) -> FloatArray:
        """The sufficient statistics, shape (..., 10), of spikes of shape (..., 100)."""
        return np.asarray(x @ design_matrix())

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta of shape (..., 10) and x of shape (..., 100); shape (...)."""
        return super().log_likelihood(theta, self.statistics(x))
