"""Metrics of categories: probabilities, confusion, reliability, Brier score, and an exact test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import beta

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_level
from sbi_models.errors import DataError

DIRECT = 64
"""Length of laws up to which they are convolved by sums, and beyond which by Fourier transforms."""


def category_probabilities(samples: object, values: Sequence[float]) -> Floats:
    """Shares of the draws in each category.

    Args:
        samples: posterior draws of one parameter, (num_datasets, S) or (num_datasets, S, 1), raw space.
        values: values of the C categories.

    Returns:
        Shares (num_datasets, C).

    Raises:
        DataError: the arrays do not fit, or a draw is in no category.

    >>> category_probabilities([[3.0, 1.0, 3.0, 3.0]], [1.0, 3.0])
    array([[0.25, 0.75]])
    """
    draws = _one("samples", samples, 2)
    shares: Floats = np.stack([np.mean(draws == value, axis=1) for value in values], axis=1)
    if not np.allclose(shares.sum(axis=1), 1.0):
        raise DataError(
            f"Expected draws among the categories {list(values)!r}, got others. Pass the values of all "
            "categories."
        )
    return shares


def confusion_matrix(samples: object, truth: object, values: Sequence[float]) -> Floats:
    """Mean posterior probability of each category, by the true one.

    Args:
        samples, values: as for `category_probabilities`.
        truth: true values, (num_datasets,) or (num_datasets, 1), raw space.

    Returns:
        Matrix (C, C), a row for each true category that sums to 1; NaN for one that no data set has.

    >>> confusion_matrix([[1, 1, 1, 0], [0, 0, 0, 0]], [1, 0], [0, 1])
    array([[1.  , 0.  ],
           [0.25, 0.75]])
    """
    shares, there = _shares_and_truth(samples, truth, values)
    numbers = there.sum(axis=0)
    matrix: Floats = np.where(
        numbers[:, None] > 0, there.T.astype(float) @ shares / np.maximum(numbers, 1)[:, None], np.nan
    )
    return matrix


def brier_score(probabilities: object, truth: object, values: Sequence[float]) -> Floats:
    """Brier score of probabilities of categories: sum of squares (p_j - 1[truth is j])^2, 0 is perfect.

    Args:
        probabilities: (num_datasets, C), as from `category_probabilities` or `CategoricalScore`. Shares of S
            draws add (1 - sum of p_j^2) / S on average.
        truth: true values, (num_datasets,) or (num_datasets, 1), raw space.
        values: values of the C categories.

    Returns:
        Scores (num_datasets,).

    References: Brier (1950), Verification of forecasts expressed in terms of probability, Monthly Weather
    Review 78(1).

    >>> brier_score([[0.5, 0.5], [0.0, 1.0]], [1, 3], [1, 3])
    array([0.5, 0. ])
    """
    stated, true = as_floats("probabilities", probabilities), _one("truth", truth, 1)
    if stated.shape != (len(true), len(values)):
        raise DataError(
            f"Expected probabilities of shape {(len(true), len(values))}, got {stated.shape}. Pass a row for "
            "each true value and a column for each category."
        )
    there = _indicators(true, values)
    scores: Floats = np.sum((stated - there) ** 2, axis=1)
    return scores


@dataclass(frozen=True)
class Reliability:
    """Frequencies of categories against their stated probabilities, in bins; all of shape (bins,).

    Attributes:
        stated: mean stated probability in each bin.
        frequency: share of these statements that were true.
        lower, upper: interval of each frequency, Clopper and Pearson's.
        number: number of statements; a data set makes one for each category.
    """

    stated: Floats
    frequency: Floats
    lower: Floats
    upper: Floats
    number: Floats


def reliability(
    samples: object, truth: object, values: Sequence[float], *, bins: int = 10, level: float = 0.95
) -> Reliability:
    """How often categories are true, by the probability that posteriors give them; equal if calibrated.

    Statements of all categories are pooled; bins without one are left out.

    Args:
        samples, truth, values: as for `confusion_matrix`.
        bins: number of bins of equal width.
        level: coverage level of the intervals.

    >>> curve = reliability([[1, 1, 1, 0], [0, 0, 0, 1]], [1, 0], [0, 1])
    >>> curve.stated, curve.frequency
    (array([0.25, 0.75]), array([0., 1.]))
    """
    check_level(level)
    shares, there = _shares_and_truth(samples, truth, values)
    place = np.minimum((shares * bins).astype(int), bins - 1).ravel()
    number = np.bincount(place, minlength=bins)
    used = number > 0
    stated = np.bincount(place, shares.ravel(), minlength=bins)[used] / number[used]
    hits = np.bincount(place, there.ravel().astype(float), minlength=bins)[used]
    n, tail = number[used].astype(float), (1.0 - level) / 2.0
    lower = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1e-9), n - hits + 1), 0.0)
    upper = np.where(hits < n, beta.ppf(1.0 - tail, hits + 1, np.maximum(n - hits, 1e-9)), 1.0)
    return Reliability(stated, hits / n, lower, upper, n)


@dataclass(frozen=True)
class CategoryTest:
    """Exact tests of the probabilities of categories; see `category_tests`.

    Attributes:
        stated, frequency: mean share of the draws in each category, and how often it was true, (C,).
        p_values: p-values of each category, (C,), for the tests of it together.
        p_value: p-value of all categories together.
        lean: standard errors by which stated probabilities vary too little: below 0, they are too extreme.
    """

    stated: Floats
    frequency: Floats
    p_values: Floats
    p_value: float
    lean: float


def category_tests(samples: object, truth: object, values: Sequence[float]) -> CategoryTest:
    """Test whether categories are true as often as posteriors say; exact for any number of draws.

    Given the pool of S draws and truth of a data set, a right posterior has the truth in a category with the
    share of the pool that is. So the number of data sets with the truth in it has a known law (a sum of
    independent Bernoulli variables). It is computed over all data sets, over those with a pooled share above
    the median of those that say neither 0 nor 1, and over the others: too extreme probabilities cancel over
    all. Two-sided, with Bonferroni's bound.

    Args:
        samples, truth, values: as for `confusion_matrix`.

    >>> rng = np.random.default_rng(1)
    >>> p = rng.uniform(size=(300, 1))
    >>> truth, draws = rng.uniform(size=300) < p[:, 0], rng.uniform(size=(300, 50)) < p
    >>> bool(category_tests(draws.astype(float), truth.astype(float), [0, 1]).p_value > 0.01)
    True
    """
    shares, there = _shares_and_truth(samples, truth, values)
    num_draws = _one("samples", samples, 2).shape[1]
    pooled = (np.round(shares * num_draws) + there) / (num_draws + 1)
    p_values = np.array([_of_one(pooled[:, c], there[:, c]) for c in range(len(values))])
    beyond = pooled - pooled.mean(axis=0)
    variance = np.sum(np.sum(beyond**2 * pooled, axis=1) - np.sum(beyond * pooled, axis=1) ** 2)
    lean = float(np.sum(beyond * (there - pooled)) / np.sqrt(max(variance, 1e-300))) if variance > 0 else 0.0
    tested = max(1, int(np.sum((pooled > 0.0).any(axis=0))))
    return CategoryTest(
        shares.mean(axis=0), there.mean(axis=0), p_values, min(1.0, float(p_values.min()) * tested), lean
    )


def _of_one(pooled: Floats, there: Floats) -> float:
    """P-value of one category, by shares of the pools (n,) and indicators of the truth (n,)."""
    open_ones = (pooled > 0.0) & (pooled < 1.0)
    if not open_ones.any():
        return 1.0
    p, hits = pooled[open_ones], there[open_ones]
    high = p > np.median(p)
    groups = [np.ones(len(p), dtype=bool), high, ~high] if high.any() else [np.ones(len(p), dtype=bool)]
    return min(1.0, len(groups) * min(_two_sided(p[group], int(hits[group].sum())) for group in groups))


def _two_sided(p: Floats, number: int) -> float:
    law = _sum_of_bernoullis(p)
    return float(min(1.0, 2.0 * min(law[: number + 1].sum(), law[number:].sum())))


def _sum_of_bernoullis(p: Floats) -> Floats:
    """Probabilities of 0 ... n successes of independent trials with probabilities p (n,).

    >>> _sum_of_bernoullis(np.array([0.5, 0.5])).tolist()
    [0.25, 0.5, 0.25]
    """
    laws = [np.array([1.0 - one, one]) for one in p]
    while len(laws) > 1:
        laws = [
            laws[k]
            if k + 1 == len(laws)
            else np.convolve(laws[k], laws[k + 1])
            if len(laws[k]) <= DIRECT
            else np.maximum(fftconvolve(laws[k], laws[k + 1]), 0.0)
            for k in range(0, len(laws), 2)
        ]
    return laws[0]


def _shares_and_truth(samples: object, truth: object, values: Sequence[float]) -> tuple[Floats, Floats]:
    shares, true = category_probabilities(samples, values), _one("truth", truth, 1)
    if len(true) != len(shares):
        raise DataError(
            f"Expected true values of {len(shares)} data sets, as of the draws, got {len(true)}. Pass the "
            "same data sets."
        )
    return shares, _indicators(true, values)


def _indicators(true: Floats, values: Sequence[float]) -> Floats:
    there: Floats = (true[:, None] == np.asarray(values, dtype=float)).astype(float)
    if not there.sum(axis=1).all():
        raise DataError(
            f"Expected true values among the categories {list(values)!r}, got others. Pass the values of all "
            "categories."
        )
    return there


def _one(what: str, given: object, axes: int) -> Floats:
    """An array with so many axes, without a last one of length 1."""
    array = as_floats(what, given)
    if array.ndim == axes + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != axes or not len(array):
        raise DataError(
            f"Expected {what} of one parameter with {axes} axes, got shape {array.shape}. Take one parameter."
        )
    return array
