"""Simulation-based calibration: rank histograms with tests of uniformity."""

from dataclasses import dataclass
from operator import index

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, chdtrc

from sbi_models.diagnostics.metrics.calibration import uniformity_test
from sbi_models.diagnostics.metrics.checks import Floats, check_level, check_samples
from sbi_models.diagnostics.metrics.ranks import random_ranks
from sbi_models.errors import ConfigurationError

PER_BIN = 20
"""Default mean number of data sets per bin."""


@dataclass(frozen=True)
class RankHistogram:
    """Counts of ranks in bins, with what a right posterior gives.

    Attributes:
        edges: edges of the bins as fractions of the S + 1 ranks, (bins + 1,).
        counts: ranks per bin, (bins, dim).
        expected, lower, upper: mean and pointwise central binomial interval of each count, (bins,).
        p_values: p-values of Pearson's chi-square test over the bins, (dim,).
        p_values_ecdf: p-values of the simultaneous ECDF band, which needs no bins, (dim,).
    """

    edges: Floats
    counts: NDArray[np.int64]
    expected: Floats
    lower: Floats
    upper: Floats
    p_values: Floats
    p_values_ecdf: Floats


def rank_histogram(
    samples: object, truth: object, bins: int | None = None, *, level: float = 0.95, seed: int = 0
) -> RankHistogram:
    """Rank histogram of each parameter: flat if right.

    A valley means over-confident, a hill under-confident, a slope biased.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.
        bins: 2 to S + 1 of them; by default as many as give 20 data sets each, at most 20. Bins that hold
            unequal numbers of ranks expect unequal counts.
        level: coverage level of the interval of each count.
        seed: seed of places among ties.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: bins or level out of range.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman (2018), Validating Bayesian inference algorithms with
        simulation-based calibration, arXiv:1804.06788.

    >>> rng = np.random.default_rng(1)
    >>> histogram = rank_histogram(rng.normal(size=(200, 99, 1)), rng.normal(size=(200, 1)))
    >>> histogram.counts.shape, bool(histogram.p_values[0] > 0.01)
    ((10, 1), True)
    """
    draws, true = check_samples(samples, truth, min_datasets=2)
    n, num_draws = draws.shape[:2]
    number = (
        int(np.clip(n // PER_BIN, 2, min(20, num_draws + 1))) if bins is None else _checked(bins, num_draws)
    )
    ranks = random_ranks(draws, true, seed)
    slots = np.round(np.linspace(0, num_draws + 1, number + 1)).astype(np.int64)
    share = np.diff(slots) / (num_draws + 1)
    which = np.searchsorted(slots, ranks, side="right") - 1
    counts = np.stack([np.bincount(column, minlength=number) for column in which.T], axis=1)
    expected = n * share
    chi_square = np.sum((counts - expected[:, None]) ** 2 / expected[:, None], axis=0)
    tail = (1.0 - check_level(level)) / 2.0
    lower, upper = (np.maximum(np.ceil(bdtrik(q, n, share)), 0.0) for q in (tail, 1.0 - tail))
    _, p_ecdf = uniformity_test((ranks + 0.5) / (num_draws + 1), num_draws)
    return RankHistogram(
        slots / (num_draws + 1), counts, expected, lower, upper, chdtrc(number - 1, chi_square), p_ecdf
    )


def _checked(bins: object, num_draws: int) -> int:
    try:
        number = index(bins)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if isinstance(bins, bool) or not 2 <= number <= num_draws + 1:
        raise ConfigurationError(
            f"Expected bins as an integer from 2 to {num_draws + 1}, one more than the draws, got {bins!r}."
        )
    return number
