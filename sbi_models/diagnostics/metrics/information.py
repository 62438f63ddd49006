"""Information test: a permutation test that the posterior is not the prior, per parameter and jointly."""

from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import ndtr, ndtri

from sbi_models.diagnostics.metrics.checks import Floats, check_samples

SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")

DRAWS, DATASETS = 64, 1000
"""Limits of draws per data set and of data sets compared with all true values: the test costs n^2 S."""


def information(samples: object, truth: object) -> tuple[Floats, Floats]:
    """Test whether truths are nearer to their own draws than to those of other data sets.

    If they are, the posterior is not the prior.

        T = mean_i a_ii - mean_ij a_ij,  a_ij = mean_s |F(draw_is) - F(truth_j)|

    with F the mean of the distribution functions of all draws and of all true values, ties in the middle, so
    that tails of any weight and any unit do as well.

    If the draws are independent of the truth, as those of the prior are, all pairings of posteriors with
    truths are equally likely, and T in units of its standard deviation over all pairings (Hoeffding) is near
    N(0, 1). What the data say of place, width or form of a posterior makes T smaller, as the energy score is
    proper.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.

    Returns:
        -T in its sds (large: informative) and one-sided p-values, both of shape (dim + 1,): each parameter,
        then all jointly. A parameter that is constant has 0 and 1/2.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 3 data sets.

    References:
        Hoeffding (1951), A combinatorial central limit theorem, Annals of Mathematical Statistics 22(4).
        Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102(477).
    """
    draws, true = check_samples(samples, truth, min_datasets=3)
    return information_of(draws, true)


def information_of(draws: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """`information` of validated arrays."""
    few = draws[:DATASETS, np.unique(np.linspace(0, draws.shape[1] - 1, DRAWS).astype(np.int64))]
    true = truth[:DATASETS]
    few, true = _evened(few, true)
    columns = [slice(j, j + 1) for j in range(true.shape[1])]
    gains = np.array([_gain(few[..., which], true[:, which]) for which in [*columns, slice(None)]])
    return gains, ndtr(-gains)


def _evened(draws: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """F of `information` at draws (n, S, dim) and truth (n, dim); 1/2 for constant parameters."""
    n, num_draws, dim = draws.shape
    evened = np.full((n, num_draws + 1, dim), 0.5)
    for j in np.flatnonzero(truth.min(axis=0) < truth.max(axis=0)):
        values = np.concatenate([draws[..., j], truth[:, j, None]], axis=1).ravel()
        order = np.argsort(values)
        placed, of_draws, of_truth = values[order], np.sort(draws[..., j], axis=None), np.sort(truth[:, j])
        sums = [
            np.searchsorted(ordered, placed, side=side) / len(ordered)
            for ordered in (of_draws, of_truth)
            for side in SIDES
        ]
        places = np.empty(len(values))
        places[order] = np.mean(sums, axis=0)
        evened[..., j] = places.reshape(n, num_draws + 1)
    return evened[:, :-1], evened[:, -1]


def _gain(draws: Floats, truth: Floats) -> float:
    """-T in its standard deviations over all pairings."""
    n = len(truth)
    distance = (
        _distances_on_a_line(draws[..., 0], truth[:, 0]) if truth.shape[1] == 1 else _distances(draws, truth)
    )
    centred = distance - distance.mean(axis=0) - distance.mean(axis=1, keepdims=True) + distance.mean()
    sd = np.sqrt(np.sum(centred**2) / (n - 1))
    return float(-np.trace(centred) / sd) if sd > 1e-12 * n * float(distance.max()) else 0.0


def _distances(draws: Floats, truth: Floats) -> Floats:
    """a_ij for draws (n, S, dim) and truths (n, dim)."""
    n, num_draws, dim = draws.shape
    chunk = max(1, 2_000_000 // (num_draws * n))
    starts = range(0, n, chunk)
    parts = [
        cdist(draws[i : i + chunk].reshape(-1, dim), truth).reshape(-1, num_draws, n).mean(axis=1)
        for i in starts
    ]
    return np.concatenate(parts)


def _distances_on_a_line(draws: Floats, truth: Floats) -> Floats:
    """a_ij of one parameter, from sorted draws (n, S) and their sums.

    With b draws below t, these add b t - (sum of them); draws above likewise.
    """
    n, num_draws = draws.shape
    ordered = np.sort(draws, axis=1)
    sums = np.concatenate([np.zeros((n, 1)), np.cumsum(ordered, axis=1)], axis=1)
    below = np.stack([np.searchsorted(row, truth) for row in ordered])
    under = np.take_along_axis(sums, below, axis=1)
    distances: Floats = ((2 * below - num_draws) * truth - 2.0 * under + sums[:, -1:]) / num_draws
    return distances


FEW, SHARE, SIZE = 200, 0.1, 20
"""Draws per data set compared with the prior, and share and number of data sets that are reported."""


def share_like_the_prior(draws: Floats, truth: Floats, prior: Floats | None = None) -> float:
    """Estimated share of data sets whose draws are the prior; 0 if that is below a tenth.

    Draws become normal scores of their ranks in the prior: draws of it, or else the true values. Data sets
    count whose scores have, for each parameter, mean and variance within 3.3 standard errors of those of the
    prior, if their means differ by little more than chance (their variance, from quartiles, is at most twice
    as large), and `information` finds nothing in them.

    Args:
        draws: (num_datasets, S, dim); 20 or more of each.
        truth: (num_datasets, dim).
        prior: (n_prior, dim).
    """
    few = draws[:, :FEW]
    num_draws, rows = few.shape[1], np.arange(len(truth))
    scored: list[Floats] = []
    for j in range(truth.shape[1]):
        ordered = np.sort(truth[:, j] if prior is None else prior[:, j])
        of_prior, scores = (_prior_scores(values, ordered) for values in (ordered, few[rows, :, j]))
        sd = of_prior.std()
        if num_draws < SIZE or sd == 0.0:
            return 0.0
        scores = (scores - of_prior.mean()) / sd
        fourth = max(np.mean(((of_prior - of_prior.mean()) / sd) ** 4) - 1.0, 0.1)
        mean, variance, of_each, of_all = (
            scores.mean(axis=1),
            scores.var(axis=1, ddof=1),
            1.0 / num_draws,
            1.0 / len(ordered),
        )
        alike = np.abs(mean) < 3.3 * np.sqrt(of_each + of_all)
        alike &= np.abs(variance - 1.0) < 3.3 * np.sqrt(fourth * (of_each + of_all))
        scored = [of_means[alike] for of_means in [*scored, mean]]
        rows = rows[alike]
        if len(rows) < max(SIZE, SHARE * len(truth)):
            return 0.0
    quarters = np.quantile(np.stack(scored, axis=1), [0.25, 0.75], axis=0)
    spread = np.ptp(quarters, axis=0) / 1.349  # the sd of normal means; of others few are among them
    known = information_of(draws[rows], truth[rows])[1] < 0.01 / (truth.shape[1] + 1)
    return 0.0 if np.any(spread**2 > 2.0 / num_draws) or known.any() else len(rows) / len(truth)


def _prior_scores(values: Floats, ordered: Floats) -> Floats:
    """Normal scores of the middle rank of values among those of the prior, in order."""
    low, high = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    scores: Floats = ndtri((low + high + 1.0) / 2.0 / (len(ordered) + 1.0))
    return scores
