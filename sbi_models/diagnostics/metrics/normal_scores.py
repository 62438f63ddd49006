"""Ranks as normal scores: exact tests of bias and of spread that do not depend on the form of the posterior."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtr, chdtrc, fdtrc, ndtri, stdtr

from sbi_models.diagnostics.metrics.checks import Floats


def normal_scores(ranks: NDArray[np.int64], num_draws: int, rng: np.random.Generator) -> Floats:
    """The standard normal quantile of each rank, at a random place within its slot: exactly N(0, 1) if the posterior is right.

        w = Phi^-1((k + v) / (S + 1)),  v ~ Uniform(0, 1)

    For a Gaussian posterior with many draws, w = (truth - mean) / sd.

    Args:
        ranks: integers 0, ..., S, any shape, ties broken at random.
        num_draws: number S of draws behind each rank.
        rng: of v.

    Reference: Cook, Gelman, Rubin (2006), Validation of software for Bayesian models using posterior quantiles, JCGS 15(3).
    """
    place = np.clip(rng.random(ranks.shape), 1e-12, 1.0 - 1e-12)
    scores: Floats = ndtri((ranks + place) / (num_draws + 1))
    return scores


def bias_test(scores: Floats) -> tuple[Floats, Floats]:
    """Student's t of the mean of each column, and its two-sided p-value, exact if scores, shape (n_datasets, dim), are N(0, 1).

    Positive where true values lie too high among the draws. Other widths of the posterior leave the test about as it is.
    """
    n = len(scores)
    t: Floats = scores.mean(axis=0) * np.sqrt(n) / scores.std(axis=0, ddof=1)
    return t, 2.0 * stdtr(n - 1, -np.abs(t))


def spread_test(scores: Floats) -> tuple[Floats, Floats]:
    """The variance of each column, and the two-sided p-value of its chi-square test, exact if scores, (n_datasets, dim), are N(0, 1).

    Above 1 where posteriors are too narrow, below 1 where too wide. Independent of `bias_test` if the posterior is right.
    """
    n = len(scores)
    variance: Floats = scores.var(axis=0, ddof=1)
    p_values: Floats = 2.0 * np.minimum(chdtr(n - 1, (n - 1) * variance), chdtrc(n - 1, (n - 1) * variance))
    return variance, np.minimum(p_values, 1.0)


def joint_bias_test(scores: Floats) -> tuple[float, float]:
    """Hotelling's T^2 of the mean of all columns together, in the form of F, and its p-value.

    Columns that are copies of others do no harm: the pseudo-inverse of their covariance is taken, and its rank in place of their number.
    """
    n = len(scores)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(scores, rowvar=False)))
    kept = values > 1e-8 * values.max()
    rank = min(int(kept.sum()), n - 2)
    along = (scores.mean(axis=0) @ vectors)[kept][-rank:]
    t_squared = n * float(np.sum(along**2 / values[kept][-rank:]))
    f = t_squared * (n - rank) / (rank * (n - 1))
    return f, float(fdtrc(rank, n - rank, f))
