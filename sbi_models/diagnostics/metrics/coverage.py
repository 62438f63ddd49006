"""Coverage of credible regions, for each parameter and for all jointly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_level, check_samples
from sbi_models.diagnostics.metrics.ranks import even_ranks, place_of
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.seeding import generator


@dataclass(frozen=True)
class Coverage:
    """Observed coverage at each credible level, with a pointwise interval for the true coverage.

    Attributes:
        levels: credible levels, (K,).
        observed, lower, upper: observed coverage and its interval, (K, dim), fractions of the data sets.
    """

    levels: Floats
    observed: Floats
    lower: Floats
    upper: Floats


def marginal_coverage(
    samples: object, truth: object, levels: object = None, band: float = 0.95, *, seed: int = 0
) -> Coverage:
    """Coverage of central credible intervals of each parameter: the level if the posterior is right.

    The central interval of level a covers if |2 u - 1| <= a for the fractional rank u, so all levels come
    from one rank. Ties have random places: where an end of an interval holds many equal draws, it covers a
    truth there as often as makes the level right. The band is the central interval of Beta(c + 1, n - c + 1),
    the posterior of the true coverage after c of n data sets covered.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.
        levels: credible levels inside (0, 1), shape (K,); by default up to 200 levels (S + 1 - 2 j) / (S +
            1), those of intervals between order statistics, at which a right posterior covers with exactly
            that probability.
        band: probability of the pointwise band.
        seed: seed of places among ties; without ties it does not matter.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: a level is not inside (0, 1).

    References:
        Hermans et al. (2022), A trust crisis in simulation-based inference?, TMLR.

    >>> rng = np.random.default_rng(1)
    >>> coverage = marginal_coverage(rng.normal(size=(500, 99, 1)), rng.normal(size=(500, 1)), [0.5])
    >>> coverage.observed.round(1).tolist()
    [[0.5]]
    """
    draws, true = check_samples(samples, truth, min_datasets=2)
    num_draws = draws.shape[1]
    at = _central_levels(num_draws) if levels is None else _check_levels(levels)
    return _with_band(at, coverage_of_ranks(even_ranks(draws, true, seed), num_draws, at), len(true), band)


def coverage_of_ranks(ranks: Floats, num_draws: int, levels: Floats) -> NDArray[np.int64]:
    """Number of data sets that central intervals cover: ranks (n, dim), levels (K,) -> counts (K, dim)."""
    return _counts_within(np.abs(2.0 * ranks - 1.0), num_draws, levels)


def joint_ranks(samples: object, truth: object, *, seed: int = 0) -> Floats:
    """Level of the smallest ellipsoid around the posterior mean that contains the truth.

    It is uniform if the joint posterior is right.

    The Mahalanobis distance of the truth, ranked among those of the S draws,

        d(x)^2 = (x - m)^T C^+ (x - m)

    Mean m and covariance C are those of the pool of the draws and the truth, so that for a right posterior
    the truth is exchangeable with the draws and its rank exactly uniform, whatever S, dim and the form of the
    posterior. C^+ is the pseudo-inverse after scaling each parameter to unit variance: parameters that are
    constant or copies of others do no harm.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space, with S > dim + 1.
        truth: true values, shape (num_datasets, dim), raw space.
        seed: seed of places among ties; without ties it does not matter.

    Returns:
        Shape (num_datasets,), strictly between 0 and 1: small if the truth lies near the mean, near 1 if it
        lies outside.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold too few draws for a covariance.
    """
    draws, true = check_samples(samples, truth, min_draws=2)
    _, num_draws, dim = draws.shape
    if num_draws <= dim + 1:
        raise DataError(
            f"Expected more than dim + 1 = {dim + 1} draws a data set for joint ranks, got "
            f"{num_draws}. Sample more draws."
        )
    rng = generator(seed, "diagnostics", "joint ranks")
    chunk = max(1, 200_000 // (num_draws * dim))  # data sets at a time, to bound memory
    parts = [
        _joint_ranks(draws[start : start + chunk], true[start : start + chunk], rng)
        for start in range(0, len(true), chunk)
    ]
    return np.concatenate(parts)


def joint_coverage(
    samples: object, truth: object, levels: object = None, band: float = 0.95, *, seed: int = 0
) -> Coverage:
    """Coverage of joint credible ellipsoids: equal to the level if the joint posterior is right.

    The region of level a covers if the joint rank is at most a. Arguments, errors and result as for
    `marginal_coverage`, with one column for all parameters together; default levels are up to 200 fractions k
    / (S + 1).
    """
    draws, true = check_samples(samples, truth, min_datasets=2, min_draws=2)
    num_draws = draws.shape[1]
    at = _thin(np.arange(1, num_draws + 1)) / (num_draws + 1) if levels is None else _check_levels(levels)
    ranks = joint_ranks(draws, true, seed=seed)
    return _with_band(at, _counts_within(ranks[:, None], num_draws, at), len(true), band)


def _joint_ranks(draws: Floats, truth: Floats, rng: np.random.Generator) -> Floats:
    """Joint ranks with the truth at a random place among the draws.

    Then rounding, which may differ along an array, breaks no tie in its favour.
    """
    n, num_draws, _ = draws.shape
    each, place = np.arange(n), rng.integers(0, num_draws + 1, n)
    pool = np.concatenate([draws, truth[:, None, :]], axis=1)
    pool[each, -1], pool[each, place] = pool[each, place], truth
    pool -= pool.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.mean(pool**2, axis=1, keepdims=True))
    pool /= np.where(scale > 0.0, scale, 1.0)
    precision = _pseudo_inverse(np.matmul(pool.transpose(0, 2, 1), pool) / pool.shape[1])
    distance = np.einsum("nsd,nsd->ns", np.matmul(pool, precision), pool)
    ranks: Floats = (place_of(distance, place, rng) + 0.5) / (num_draws + 1)
    return ranks


def _pseudo_inverse(correlation: Floats) -> Floats:
    """Inverse of each matrix, shape (n, dim, dim); by eigenvectors if one is nearly singular."""
    try:
        pivots = np.diagonal(np.linalg.cholesky(correlation), axis1=1, axis2=2)
        regular = bool(pivots.min() > 1e-5)
    except np.linalg.LinAlgError:
        regular = False
    inverse = (
        np.linalg.inv(correlation) if regular else np.linalg.pinv(correlation, rcond=1e-10, hermitian=True)
    )
    return inverse.astype(np.float64, copy=False)


def _counts_within(values: Floats, num_draws: int, levels: Floats) -> NDArray[np.int64]:
    """Number of values, shape (n, dim), up to each level, shape (K,), with rounding: counts (K, dim)."""
    edges = levels + 1e-9 / (num_draws + 1)
    ordered = np.sort(values, axis=0)
    return np.stack([np.searchsorted(column, edges, side="right") for column in ordered.T], axis=-1).astype(
        np.int64
    )


def _with_band(levels: Floats, counts: NDArray[np.int64], num_datasets: int, band: float) -> Coverage:
    tail = (1.0 - check_level(band)) / 2.0
    count = np.arange(num_datasets + 1)
    lower, upper = (betaincinv(count + 1.0, num_datasets - count + 1.0, q) for q in (tail, 1.0 - tail))
    return Coverage(levels, counts / num_datasets, lower[counts], upper[counts])


def _central_levels(num_draws: int) -> Floats:
    inner = np.arange(1, num_draws // 2 + 1)
    if inner.size == 0:
        raise DataError(
            f"Expected at least 2 draws a data set for a central interval, got {num_draws}. Sample "
            "more draws."
        )
    levels: Floats = _thin((num_draws + 1 - 2 * inner)[::-1]) / (num_draws + 1)
    return levels


def _thin(values: NDArray[np.int64], most: int = 200) -> NDArray[np.int64]:
    """At most `most` of the values, evenly spread, with both ends."""
    keep = np.unique(np.round(np.linspace(0, len(values) - 1, min(most, len(values)))).astype(np.int64))
    return values[keep]


def _check_levels(levels: object) -> Floats:
    at = np.atleast_1d(as_floats("levels", levels))
    if at.ndim != 1 or at.size == 0 or not np.all((at > 0.0) & (at < 1.0)):
        raise ConfigurationError(
            f"Expected a list of levels strictly between 0 and 1, got {levels!r}. Pass levels=[0.5, 0.95]."
        )
    return at
