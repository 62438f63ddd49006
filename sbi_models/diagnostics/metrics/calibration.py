"""Uniformity of ranks: simultaneous ECDF bands, the log gamma statistic, and the calibration error."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, bdtrc, bdtrik

from sbi_models.diagnostics.metrics.checks import Floats, check_level, check_samples
from sbi_models.diagnostics.metrics.coverage import coverage_of_ranks
from sbi_models.diagnostics.metrics.ranks import even_ranks
from sbi_models.diagnostics.metrics.registry import default_metric
from sbi_models.seeding import generator

NUM_NULL = 4000
"""Simulated sets of uniform ranks per critical value, which makes the level of a 95 % band 95 % +- 0.35 %."""

CALIBRATION_LEVELS: Floats = np.linspace(0.005, 0.995, 20)


@dataclass(frozen=True)
class EcdfBand:
    """Region that contains the whole ECDF of uniform ranks with probability `level`.

    Attributes:
        z: evaluation points, (K,).
        lower, upper: smallest and largest ECDF value within the band, (K,).
        level: coverage level of the whole band.
    """

    z: Floats
    lower: Floats
    upper: Floats
    level: float


def evaluation_points(num_datasets: int, num_draws: int) -> Floats:
    """Evaluation points of ECDFs: edges k / (S + 1) between ranks, where the count is exactly binomial.

    All S edges if there are few, else about as many as there are data sets, 200 to 500 of them. Shape (K,),
    inside (0, 1).

    >>> evaluation_points(100, 4)
    array([0.2, 0.4, 0.6, 0.8])
    """
    count = min(num_draws, int(np.clip(num_datasets, 200, 500)))
    slots = np.unique(np.round(np.linspace(1, num_draws, count)))
    edges: Floats = slots / (num_draws + 1)
    return edges


def ecdf_counts(ranks: Floats, z: Floats) -> NDArray[np.int64]:
    """Number of ranks, shape (n, dim), below each point z, shape (K,): counts of shape (K, dim)."""
    ordered = np.sort(ranks, axis=0)
    return np.stack([np.searchsorted(column, z) for column in ordered.T], axis=-1).astype(np.int64)


def local_gamma(counts: NDArray[np.int64], num_datasets: int, z: Floats) -> Floats:
    """Smallest two-sided binomial tail probability of ECDF counts over the points z.

        gamma = 2 min_k min(P(Bin(n, z_k) <= c_k), P(Bin(n, z_k) >= c_k))

    counts: shape (..., K); z: shape (K,); returns shape (...), not below the smallest normal float.
    """
    rows = counts.size // len(z)
    if num_datasets < rows:  # cheaper: every possible count once, then look up
        every = np.arange(num_datasets + 1)[:, None]
        table = np.minimum(bdtr(every, num_datasets, z), bdtrc(every - 1, num_datasets, z))
        tails = table[counts, np.arange(len(z))]
    else:
        tails = np.minimum(bdtr(counts, num_datasets, z), bdtrc(counts - 1, num_datasets, z))
    gamma: Floats = np.maximum(2.0 * tails.min(axis=-1), np.finfo(np.float64).tiny)
    return gamma


@lru_cache(maxsize=32)
def null_gammas(num_datasets: int, num_draws: int) -> Floats:
    """`local_gamma` of `NUM_NULL` sets of uniform ranks in increasing order, simulated with a fixed seed."""
    z = evaluation_points(num_datasets, num_draws)
    rng = generator(0, "diagnostics", "ecdf band", num_datasets, num_draws)
    per_gap = rng.multinomial(num_datasets, np.diff(z, prepend=0.0, append=1.0), size=NUM_NULL)
    return np.sort(local_gamma(np.cumsum(per_gap[:, :-1], axis=1), num_datasets, z))


def critical_gamma(num_datasets: int, num_draws: int, level: float = 0.95) -> float:
    """The 1 - level quantile of `local_gamma` for uniform ranks.

    Adjusts the pointwise level so that the band holds at all points at once (algorithm 1 of Säilynoja et al.
    2022). It is a value that gamma takes, lowered by a billionth so that rounding cannot put a set of ranks
    on the edge of the band outside.
    """
    quantile = np.quantile(
        null_gammas(num_datasets, num_draws), 1.0 - check_level(level), method="inverted_cdf"
    )
    return float(quantile) * (1.0 - 1e-9)


def uniformity_test(ranks: Floats, num_draws: int) -> tuple[Floats, Floats]:
    """`log_gamma` at level 0.95 and its p-value: the probability of a larger deviation of uniform ranks.

    It is a test against any departure from uniformity. The p-value comes from the simulated `null_gammas`;
    where those are too few, from Bonferroni's bound K gamma over the K evaluation points.

    Args:
        ranks: midpoints (k + 1/2) / (S + 1) of slots, shape (num_datasets, dim), without ties or with ties
            broken at random.
        num_draws: number S of draws behind each rank.

    Returns:
        Statistic and p-value, shape (dim,) each.
    """
    n, z = len(ranks), evaluation_points(len(ranks), num_draws)
    observed = local_gamma(ecdf_counts(ranks, z).T, n, z)
    as_low = np.searchsorted(null_gammas(n, num_draws), observed * (1.0 + 1e-9), side="right")
    p_values: Floats = np.minimum((as_low + 1.0) / (NUM_NULL + 1.0), len(z) * observed)
    return np.log(observed) - np.log(critical_gamma(n, num_draws)), p_values


def simultaneous_band(num_datasets: int, num_draws: int, level: float = 0.95) -> EcdfBand:
    """Band that contains the ECDF of n uniform ranks, at all points at once, with probability `level`.

        [Bin^-1(gamma / 2; n, z), Bin^-1(1 - gamma / 2; n, z)] / n,  gamma = critical_gamma(n, S, level)

    Args:
        num_datasets: number n of ranks, one for each data set.
        num_draws: number S of posterior draws behind each rank.
        level: probability of the whole band, 0.95 by default.

    Raises:
        ConfigurationError: the level is not inside (0, 1).

    References:
        Säilynoja, Bürkner, Vehtari (2022), Graphical test for discrete uniformity and its applications in
        goodness-of-fit evaluation and multiple sample comparison, Statistics and Computing 32:32.
    """
    z = evaluation_points(num_datasets, num_draws)
    half = critical_gamma(num_datasets, num_draws, check_level(level)) / 2.0
    lower = _binomial_quantile(half, num_datasets, z) / num_datasets
    upper = (
        1.0 - _binomial_quantile(half, num_datasets, 1.0 - z) / num_datasets
    )  # the mirror image: no 1 - half, which rounds
    return EcdfBand(z, lower, upper, level)


@default_metric("Log Gamma", "below 0 is bad", row=1)
def log_gamma(samples: object, truth: object, level: float = 0.95, *, seed: int = 0) -> Floats:
    """Test that the ranks of each parameter are uniform: below 0 rejects at 5 %.

        log(gamma / gamma_0.05)

    with gamma of `local_gamma` for the observed ranks and its 5 % quantile when ranks are uniform. Below 0
    exactly if the ECDF leaves the simultaneous band.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.
        level: probability of the band, so that a right posterior is rejected with probability 1 - level.
        seed: seed of places among ties; without ties it does not matter.

    Returns:
        Shape (dim,), in nats; not below about -708, where float64 ends.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: the level is not inside (0, 1).

    References:
        Säilynoja, Bürkner, Vehtari (2022), as for `simultaneous_band`.

    >>> rng = np.random.default_rng(0)
    >>> truth, exact = rng.normal(size=(200, 1)), rng.normal(size=(200, 100, 1))
    >>> bool(log_gamma(exact, truth)[0] > 0), bool(log_gamma(0.5 * exact, truth)[0] > 0)
    (True, False)
    """
    draws, true = check_samples(samples, truth, min_datasets=2)
    return log_gamma_of_ranks(even_ranks(draws, true, seed), draws.shape[1], level)


def log_gamma_of_ranks(ranks: Floats, num_draws: int, level: float = 0.95) -> Floats:
    """`log_gamma` of `even_ranks`, shape (num_datasets, dim), among `num_draws` draws: shape (dim,)."""
    n, z = len(ranks), evaluation_points(len(ranks), num_draws)
    observed = local_gamma(ecdf_counts(ranks, z).T, n, z)
    statistic: Floats = np.log(observed) - np.log(critical_gamma(n, num_draws, check_level(level)))
    return statistic


@default_metric("Calibration Error", "0 is best", row=2)
def calibration_error(samples: object, truth: object, *, seed: int = 0) -> Floats:
    """Expected calibration error: deviation of the coverage of central intervals from their nominal coverage.

        mean over 20 levels a in [0.005, 0.995] of |coverage(a) - a|

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.
        seed: seed of places among ties; without ties it does not matter.

    Returns:
        Shape (dim,), a probability; 0 is perfect, and chance alone leaves about 0.3 / sqrt(num_datasets).

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.

    References:
        Naeini, Cooper, Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning,
        AAAI (for classifiers); here with central intervals in place of bins.

    >>> rng = np.random.default_rng(0)
    >>> truth, exact = rng.normal(size=(200, 1)), rng.normal(size=(200, 100, 1))
    >>> [bool(calibration_error(draws, truth)[0] < 0.05) for draws in (exact, 0.5 * exact)]
    [True, False]
    """
    draws, true = check_samples(samples, truth, min_datasets=2)
    return calibration_error_of_ranks(even_ranks(draws, true, seed), draws.shape[1])


def calibration_error_of_ranks(ranks: Floats, num_draws: int) -> Floats:
    """`calibration_error` of `even_ranks`, (num_datasets, dim), among `num_draws` draws: shape (dim,)."""
    covered = coverage_of_ranks(ranks, num_draws, CALIBRATION_LEVELS) / len(ranks)
    error: Floats = np.abs(covered - CALIBRATION_LEVELS[:, None]).mean(axis=0)
    return error


def _binomial_quantile(q: float, n: int, p: Floats) -> Floats:
    """Smallest count k with P(Bin(n, p) <= k) >= q, shape of p."""
    count = np.ceil(bdtrik(q, n, p))
    smaller = np.maximum(count - 1.0, 0.0)
    quantile: Floats = np.where(bdtr(smaller, n, p) >= q, smaller, count)
    return quantile
