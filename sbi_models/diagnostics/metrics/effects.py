"""Effect sizes of flaws with intervals: width factor, bias in posterior sds, and contraction."""

from typing import NamedTuple

import numpy as np
from scipy.special import chndtrinc, ndtri

from sbi_models.diagnostics.metrics.checks import Floats

MOST = 600.0
"""Limit of log variance ratios, so that their exponentials are finite."""

NORMAL = 1e9
"""Noncentral chi-square number from which its root is taken for normal; SciPy fails beyond, or never ends."""


class Interval(NamedTuple):
    """Estimate with the ends of its confidence interval; arrays of shape (dim,) or numbers."""

    value: Floats
    low: Floats
    high: Floats


def bias_in_sds(z: Floats, coverage_level: float = 0.95) -> Interval:
    """Mean of (posterior mean - truth) / sd, shape (num_datasets, dim): above 0 for too high posteriors.

    Its expectation is 0 for a right posterior of any form. NaN are left out. The interval is that of the
    central limit theorem, with 1, the variance that right posteriors have, or what is observed, if that is
    larger.
    """
    mean, variance, n = _moments(z)
    half = ndtri(0.5 + coverage_level / 2.0) * np.sqrt(np.fmax(variance, 1.0) / n)
    half = np.where(np.isnan(variance), np.nan, half)
    return Interval(mean, mean - half, mean + half)


def width_factor(z: Floats, second: Floats, fourth: Floats, coverage_level: float = 0.95) -> Interval:
    """Factor by which posterior sds should be multiplied: the sd of z-scores; above 1 if over-confident.

    z-scores have shape (num_datasets, dim).

        sqrt(var(z) / mean(second))

    NaN are left out. The interval is that of log var(z), with the relative variance of z^2 that right
    posteriors have, or that is observed, if that is larger, for few z of a heavy-tailed posterior do not show
    its tails.

    Args:
        z: (posterior mean - truth) / sd.
        second, fourth: what z^2 and z^4 are on average if posteriors are right, shaped as z; `Pools` has
            them, for any law.
        coverage_level: coverage level of the interval.
    """
    mean, variance, n = _moments(z)
    there = np.isfinite(z)
    squared = np.where(there, z - mean, 0.0) ** 2
    expected, expected_square = (
        np.sum(np.where(there, values, 0.0), axis=0) / n for values in (second, fourth)
    )
    return _of_square(
        variance, np.sum(squared**2, axis=0) / n, (expected, expected_square), n, coverage_level
    )


def joint_width_factor(
    errors: Floats, second: Floats, fourth: Floats, coverage_level: float = 0.95
) -> Interval:
    """Joint width factor, by the lengths of errors minus the mean error; NaN for fewer than two errors.

    errors: posterior mean minus truth in joint posterior sds, (num_datasets, dim); second, fourth: what their
    squared lengths, and the squares of these, are on average if posteriors are right, (num_datasets,).
    """
    there = np.isfinite(errors).all(axis=1) & (second > 0.0)
    if there.sum() < 2:
        return Interval(*[np.asarray(np.nan)] * 3)
    errors, second, fourth, n = errors[there], second[there], fourth[there], np.asarray(float(there.sum()))
    squared = np.sum((errors - errors.mean(axis=0)) ** 2, axis=1) * n / (n - 1.0)
    return _of_square(squared.mean(), np.mean(squared**2), (second.mean(), fourth.mean()), n, coverage_level)


def joint_bias_in_sds(errors: Floats, parameters: int, coverage_level: float = 0.95) -> Interval:
    """Length of the mean error in joint posterior sds, without the contribution of chance.

    Errors are as for `joint_width_factor`.

    n |mean|^2 / width^2 is near noncentral chi-square with dim degrees of freedom, whose noncentrality has
    the interval; from `NORMAL` on its root is normal with sd 1. NaN are left out.
    """
    errors = errors[np.isfinite(errors).all(axis=1)]
    n = len(errors)
    if n < 2:
        return Interval(*[np.asarray(np.nan)] * 3)
    width_squared = float(np.sum(errors.var(axis=0, ddof=1))) / parameters
    observed = n * float(np.sum(errors.mean(axis=0) ** 2)) / max(width_squared, 1e-300)
    tail = (1.0 - coverage_level) / 2.0
    if observed < NORMAL:
        ends = chndtrinc(observed, parameters, np.array([1.0 - tail, tail]))
    else:
        ends = (np.sqrt(observed) + ndtri(np.array([tail, 1.0 - tail]))) ** 2
    noncentral = np.array([max(observed - parameters, 0.0), *np.nan_to_num(ends)])
    value, low, high = np.sqrt(np.where(noncentral > 1e-12, noncentral, 0.0) * width_squared / n)
    return Interval(value, low, max(high, value))


def mean_contraction(
    variance: Floats, truth: Floats, prior: Floats | None = None, coverage_level: float = 0.95
) -> Interval:
    """1 - mean(posterior variance) / prior variance, with a jackknife interval over data sets.

    Args:
        variance: variance of the draws of each data set, (num_datasets, dim).
        truth: true values, (num_datasets, dim), which stand for the prior if no draws of it are given.
        prior: draws of the prior, (n_prior, dim).
        coverage_level: coverage level of the interval.

    Returns:
        Shape (dim,), NaN for a constant parameter.
    """
    of_prior = _jackknife_variances(truth if prior is None else prior)
    left_out = (variance.sum(axis=0) - variance) / (len(variance) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = np.log(variance.mean(axis=0)) - np.log(
            (truth if prior is None else prior).var(axis=0, ddof=1)
        )
        if prior is None:
            squared = _jackknife_error(np.log(left_out) - np.log(of_prior))
        else:
            squared = _jackknife_error(np.log(left_out)) + _jackknife_error(np.log(of_prior))
    half = ndtri(0.5 + coverage_level / 2.0) * np.sqrt(np.where(np.isneginf(whole), 0.0, squared))
    constant = np.ptp(truth if prior is None else prior, axis=0) == 0.0
    ends = (
        1.0 - np.exp(np.minimum(np.where(constant, np.nan, log_ratio), MOST))
        for log_ratio in (whole, whole + half, whole - half)
    )
    return Interval(*ends)


def _moments(z: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean and variance (ddof = 1) of each column without NaN, and the number of values, at least 1.

    Both are NaN for fewer than two values.
    """
    there = np.isfinite(z)
    n = np.maximum(there.sum(axis=0), 1).astype(np.float64)
    mean = np.sum(np.where(there, z, 0.0), axis=0) / n
    variance = np.sum(np.where(there, z - mean, 0.0) ** 2, axis=0) / np.maximum(n - 1.0, 1.0)
    return np.where(n > 1.0, mean, np.nan), np.where(n > 1.0, variance, np.nan), n


def _of_square(
    square: Floats, fourth: Floats, right: tuple[Floats, Floats], n: Floats, coverage_level: float
) -> Interval:
    """Root of a mean of n squares over its expected value, with an interval from fourth powers."""
    expected, expected_square = right
    base = np.where(expected > 0.0, expected, np.nan)
    relative = np.fmax(fourth / np.where(square > 0.0, square, np.inf) ** 2, expected_square / base**2) - 1.0
    half = ndtri(0.5 + coverage_level / 2.0) * np.sqrt(np.maximum(relative, 0.0) / n) / 2.0
    root = np.sqrt(square / base)
    return Interval(root, root * np.exp(-half), root * np.exp(half))


def _jackknife_variances(values: Floats) -> Floats:
    """Variance (ddof = 1) of a column without each of its n values, (n, dim)."""
    n = len(values)
    squared = (values - values.mean(axis=0)) ** 2
    without: Floats = np.maximum((squared.sum(axis=0) - squared * n / (n - 1)) / (n - 2), 0.0)
    return without


def _jackknife_error(left_out: Floats) -> Floats:
    """Squared standard error by the jackknife, from estimates with one value left out, (n, dim)."""
    n = len(left_out)
    error: Floats = (n - 1) / n * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0)
    return error
