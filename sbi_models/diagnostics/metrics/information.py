"""Do the draws know anything about the truth? A permutation test, for each parameter and jointly."""

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from sbi_models.diagnostics.metrics.checks import Floats, check_samples

DRAWS, DATASETS = 64, 1000
"""At most so many draws of so many data sets are compared with all true values: the test costs n^2 S."""


def information(samples: object, truth: object) -> tuple[Floats, Floats]:
    """Whether each truth is nearer to its own draws than to those of other data sets: a test that the posterior is not the prior.

        T = mean_i a_ii - mean_ij a_ij,  a_ij = mean_s |draw_is - truth_j|

    If the draws are independent of the truth, as those of the prior are, all pairings of posteriors with truths are equally likely, and
    T in units of its standard deviation over all pairings (Hoeffding) is near N(0, 1). What the data say of place, width or form of a
    posterior makes T smaller, as the energy score is proper.

    Args:
        samples: posterior draws, shape (n_datasets, S, dim), raw space.
        truth: true values, shape (n_datasets, dim), raw space.

    Returns:
        -T in its sds (large: informative) and one-sided p-values, both of shape (dim + 1,): each parameter, then all jointly with each
        in units of the sd of its true values. A parameter that is constant has 0 and 1.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 3 data sets.

    References:
        Hoeffding (1951), A combinatorial central limit theorem, Annals of Mathematical Statistics 22(4).
        Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102(477).
    """
    draws, true = check_samples(samples, truth, min_datasets=3)
    return information_of(draws, true)


def information_of(draws: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """`information` of arrays that have been checked."""
    few = draws[:DATASETS, np.unique(np.linspace(0, draws.shape[1] - 1, DRAWS).astype(np.int64))]
    true = truth[:DATASETS]
    sd = true.std(axis=0)
    scale = np.where(np.ptp(true, axis=0) > 0.0, np.where(sd > 0.0, sd, 1.0), np.inf)
    few, true = few / scale, true / scale
    columns = [slice(j, j + 1) for j in range(true.shape[1])]
    gains = np.array([_gain(few[..., which], true[:, which]) for which in [*columns, slice(None)]])
    return gains, ndtr(-gains)


def _gain(draws: Floats, truth: Floats) -> float:
    """-T in its standard deviations over all pairings."""
    n = len(truth)
    distance = _distances_on_a_line(draws[..., 0], truth[:, 0]) if truth.shape[1] == 1 else _distances(draws, truth)
    centred = distance - distance.mean(axis=0) - distance.mean(axis=1, keepdims=True) + distance.mean()
    sd = np.sqrt(np.sum(centred**2) / (n - 1))
    return float(-np.trace(centred) / sd) if sd > 1e-12 * n * float(distance.max()) else 0.0


def _distances(draws: Floats, truth: Floats) -> Floats:
    """a_ij for draws (n, S, dim) and truths (n, dim)."""
    n, num_draws, dim = draws.shape
    chunk = max(1, 2_000_000 // (num_draws * n))
    starts = range(0, n, chunk)
    parts = [cdist(draws[i : i + chunk].reshape(-1, dim), truth).reshape(-1, num_draws, n).mean(axis=1) for i in starts]
    return np.concatenate(parts)


def _distances_on_a_line(draws: Floats, truth: Floats) -> Floats:
    """The same for one parameter, from sorted draws (n, S) and their sums: with b draws below t, b t - (sum of them), and so above."""
    n, num_draws = draws.shape
    ordered = np.sort(draws, axis=1)
    sums = np.concatenate([np.zeros((n, 1)), np.cumsum(ordered, axis=1)], axis=1)
    below = np.stack([np.searchsorted(row, truth) for row in ordered])
    under = np.take_along_axis(sums, below, axis=1)
    distances: Floats = ((2 * below - num_draws) * truth - 2.0 * under + sums[:, -1:]) / num_draws
    return distances
