"""Posteriors whose diagnostics are known: a conjugate Gaussian model, exact, too narrow, too wide, or
shifted."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Problem(NamedTuple):
    samples: NDArray[np.float64]
    truth: NDArray[np.float64]


def gaussian(
    seed: int,
    *,
    n: int = 300,
    draws: int = 200,
    dim: int = 2,
    noise: float = 0.5,
    width: float = 1.0,
    shift: float = 0.0,
) -> Problem:
    """theta ~ N(0, 1), x | theta ~ N(theta, noise^2): draws of N(mean + shift sd, (width sd)^2); the exact
    posterior is N(mean, sd^2)."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, dim))
    x = truth + noise * rng.normal(size=(n, dim))
    variance = noise**2 / (1.0 + noise**2)
    mean, sd = x / (1.0 + noise**2), variance**0.5
    samples = (mean + shift * sd)[:, None, :] + width * sd * rng.normal(size=(n, draws, dim))
    return Problem(samples, truth)
