"""TARP: expected coverage of balls around random points, a test of the joint posterior without a density."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbi_models.diagnostics.metrics.calibration import simultaneous_band, uniformity_test
from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite, check_level, check_samples
from sbi_models.diagnostics.metrics.ranks import place_of
from sbi_models.errors import DataError
from sbi_models.seeding import generator


@dataclass(frozen=True)
class Tarp:
    """Expected coverage of TARP regions at each credibility level, with the simultaneous band of its test.

    Attributes:
        levels, observed, lower, upper: credibility levels, observed coverage, and its band, (K,).
        p_value: p-value of the test that coverage probabilities are uniform.
        area: mean of observed - level above level 1/2, and of level - observed below; positive for too wide
            posteriors, negative for too narrow ones.
    """

    levels: Floats
    observed: Floats
    lower: Floats
    upper: Floats
    p_value: float
    area: float


def tarp(
    samples: object, truth: object, references: object = None, *, level: float = 0.95, seed: int = 0
) -> Tarp:
    """Tests of accuracy with random points (TARP): coverage of balls around random points.

    A ball with the share a of the draws contains the truth with probability a if the posterior is right.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.
        references: a point for each data set, shape (num_datasets, dim), raw space; it may depend on the
            data, not on the truth. By default the true values of other data sets, which are prior draws.
        level: coverage level of the simultaneous band.
        seed: seed of the default references, and of places among ties.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: the level is not inside (0, 1).

    References:
        Lemos, Coogan, Hezaveh, Perreault-Levasseur (2023), Sampling-based accuracy testing of posterior
        estimators for general inference, ICML. The band: Säilynoja et al. (2022), as for `simultaneous_band`.

    >>> rng = np.random.default_rng(1)
    >>> bool(tarp(rng.normal(size=(200, 99, 2)), rng.normal(size=(200, 2))).p_value > 0.01)
    True
    """
    draws, true = check_samples(samples, truth, min_datasets=2)
    ranks, num_draws = tarp_ranks(draws, true, references, seed=seed), draws.shape[1]
    band = simultaneous_band(len(true), num_draws, check_level(level))
    fractions = (ranks + 0.5) / (num_draws + 1)
    _, p_value = uniformity_test(fractions[:, None], num_draws)
    observed = np.searchsorted(np.sort(fractions), band.z) / len(true)
    gap = observed - band.z
    area = float(np.mean(np.where(band.z > 0.5, gap, -gap)))
    return Tarp(band.z, observed, band.lower, band.upper, float(p_value[0]), area)


def tarp_ranks(
    samples: object, truth: object, references: object = None, *, seed: int = 0
) -> NDArray[np.int64]:
    """Number of draws nearer to the reference point than the truth is.

    It is uniform on 0, ..., S if the posterior is right.

    Distances are Euclidean, each parameter in units of the sd of the true values of all other data sets.
    Arguments and errors as for `tarp`.

    Returns:
        Shape (num_datasets,).
    """
    draws, true = check_samples(samples, truth, min_datasets=2)
    rng = generator(seed, "diagnostics", "tarp")
    points = true[_others(len(true), rng)] if references is None else _points(references, true.shape)
    spread = _spread_of_others(true)
    chunk = max(1, 1_000_000 // (draws.shape[1] * draws.shape[2]))
    squared = []
    for start in range(0, len(true), chunk):
        rows = slice(start, start + chunk)
        pool = np.concatenate([draws[rows], true[rows, None, :]], axis=1)
        squared.append(np.sum(((pool - points[rows, None, :]) / spread[rows, None, :]) ** 2, axis=2))
    distances = np.concatenate(squared)
    return place_of(distances, np.full(len(true), draws.shape[1]), rng)


def _spread_of_others(true: Floats) -> Floats:
    """Sd of the true values of all other data sets, 1 if these are equal.

    A data set's own truth must not influence how its distance is measured.
    """
    n = len(true)
    centred = true - true.mean(axis=0)
    mean = -centred / (n - 1)
    variance = (np.sum(centred**2, axis=0) - centred**2) / (n - 1) - mean**2
    spread: Floats = np.sqrt(np.maximum(variance, 0.0))
    for i, k in np.argwhere(variance <= 1e-8 * np.mean(centred**2, axis=0)):  # the rest is rounding
        others = np.delete(true[:, k], i)
        spread[i, k] = others.std() if np.ptp(others) > 0 else 1.0
    return spread


def _others(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Another data set for each data set: a random cycle through all."""
    order = rng.permutation(n)
    others = np.empty(n, dtype=np.int64)
    others[order] = np.roll(order, 1)
    return others


def _points(references: object, shape: tuple[int, ...]) -> Floats:
    points = as_floats("references", references)
    if points.shape != shape:
        raise DataError(
            f"Expected references of shape {shape}, one point for each data set, got {points.shape}."
        )
    check_finite("references", points)
    return points
