"""Normal scores of ranks: exact tests of place, spread, and their change with the data."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtr, chdtrc, ndtr, ndtri, stdtr
from scipy.stats import rankdata

from sbi_models.diagnostics.metrics.checks import Floats

EDGE = 1e-12
"""Distance of random places within slots from the slot's ends, which keeps scores finite."""


def normal_scores(ranks: NDArray[np.int64], num_draws: int, rng: np.random.Generator) -> Floats:
    """Standard normal quantile of each rank, at a random place within its slot.

    Scores are exactly N(0, 1) if the posterior is right.

        w = Phi^-1((k + v) / (S + 1)),  v ~ Uniform(0, 1)

    For a Gaussian posterior with many draws, w = (truth - mean) / sd.

    Args:
        ranks: integers 0, ..., S, any shape, ties broken at random.
        num_draws: number S of draws behind each rank.
        rng: generator of v.

    Reference: Cook, Gelman, Rubin (2006), Validation of software for Bayesian models using posterior
    quantiles, JCGS 15(3).
    """
    place = np.clip(rng.random(ranks.shape), EDGE, 1.0 - EDGE)
    scores: Floats = ndtri((ranks + place) / (num_draws + 1))
    return scores


def outward(scores: Floats) -> Floats:
    """Scores of |2 u - 1| given those of u: large at both ends; N(0, 1) if the scores are."""
    folded: Floats = ndtri(np.clip(np.abs(2.0 * ndtr(scores) - 1.0), EDGE, 1.0 - EDGE))
    return folded


def bias_test(scores: Floats) -> tuple[Floats, Floats]:
    """Student's t of each column's mean and its two-sided p-value, exact for scores that are N(0, 1).

    Scores have shape (num_datasets, dim).

    Positive where true values lie too high among the draws. Other widths of the posterior leave the test
    about as it is.
    """
    n = len(scores)
    t: Floats = scores.mean(axis=0) * np.sqrt(n) / scores.std(axis=0, ddof=1)
    return t, 2.0 * stdtr(n - 1, -np.abs(t))


def spread_test(scores: Floats) -> tuple[Floats, Floats]:
    """Variance of each column and the two-sided p-value of its chi-square test, exact for N(0, 1) scores.

    Scores have shape (num_datasets, dim).

    Above 1 where posteriors are too narrow, below 1 where too wide. Independent of `bias_test` if the
    posterior is right.
    """
    n = len(scores)
    variance: Floats = scores.var(axis=0, ddof=1)
    p_values: Floats = 2.0 * np.minimum(chdtr(n - 1, (n - 1) * variance), chdtrc(n - 1, (n - 1) * variance))
    return variance, np.minimum(p_values, 1.0)


def change_test(scores: Floats, features: Floats) -> tuple[Floats, Floats]:
    """Test whether scores change with features of data sets: t of the largest correlation, p-value for all q.

    Scores of a right posterior are N(0, 1) and independent of data and pools, so each correlation has
    Student's t, exactly, whatever the features are; Bonferroni's bound, q times the smallest p-value, is for
    all of them. It sees what cancels on average over the data.

    Args:
        scores: (num_datasets, number).
        features: features of data and pools, not of which value is the truth, (num_datasets, q), no column
            constant.

    Returns:
        Shape (number,) each; t = 0 and p = 1 without features.
    """
    n, q = features.shape
    if not q:
        return np.zeros(scores.shape[1]), np.ones(scores.shape[1])
    of_scores, of_features = (values - values.mean(axis=0) for values in (scores, features))
    r = (
        of_scores.T
        @ of_features
        / np.outer(np.linalg.norm(of_scores, axis=0), np.linalg.norm(of_features, axis=0))
    )
    r = np.take_along_axis(r, np.abs(r).argmax(axis=1)[:, None], axis=1)[:, 0]
    t: Floats = r * np.sqrt((n - 2) / np.maximum(1.0 - r**2, 1e-300))
    return t, np.minimum(q * 2.0 * stdtr(n - 2, -np.abs(t)), 1.0)


def features_of(columns: Floats) -> Floats:
    """Columns (num_datasets, q) as normal scores over data sets, and those of distances from the middle.

    Constant columns are left out. Ranks make one test of linear, curved, and heavy-tailed features alike.
    """
    ranked = _ranked(columns)
    both = np.concatenate([ranked, _ranked(np.abs(ranked))], axis=1)
    return both[:, np.ptp(both, axis=0) > 1e-9]


def _ranked(columns: Floats) -> Floats:
    scores: Floats = ndtri((rankdata(columns, axis=0) - 0.5) / len(columns))
    return scores
