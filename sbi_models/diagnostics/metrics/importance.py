"""Importance weights of posterior draws: effective sample size and Pareto-smoothed importance sampling.

With weights w_s = p(theta_s) p(x | theta_s) / q(theta_s | x) of draws theta_s of an approximation q, the
exact posterior is the weighted sample, if the weights have no heavy tail.

References: Zhang & Stephens (2009), A new and efficient estimation method for the generalized Pareto
distribution, Technometrics 51(3); Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance
sampling, JMLR 25(72).
"""

from typing import NamedTuple

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats, as_floats
from sbi_models.errors import DataError

_FEWEST_IN_TAIL = 5
_SMALLEST_LOG = float(np.log(np.finfo(float).tiny))
_PRIOR_WEIGHT, _PRIOR_SHAPE = 10, 0.5


class SmoothedWeights(NamedTuple):
    """Normalized log weights (num_datasets, num_samples), and the Pareto k of their tail (num_datasets,)."""

    log_weights: Floats
    pareto_k: Floats


def pareto_smoothed(log_weights: object) -> SmoothedWeights:
    """Pareto-smoothed log weights: a fitted generalized Pareto distribution replaces the upper tail.

    k below 0.5: all is well; up to 0.7: usable; above: too heavy a tail for any finite sample, and not even
    smoothing helps. k is infinite where no draw has a finite weight, or where fewer than five weigh more than
    the rest, too few for a tail, as of fewer than 21 draws; and 0 where none does, such as for equal weights.

    A single draw that has nearly all of the weight is taken for the end of a tail, and gets its share of it:
    what there is of use without smoothing, and the largest share, stand beside (`effective_sample_share` and
    `largest_weight_share` of weights as they are).

    Args:
        log_weights: (num_datasets, num_samples), in nats, up to a constant for each data set; -inf is a
            weight of zero.

    Raises:
        DataError: the array has another shape, or holds NaN or inf.

    >>> log_weights = np.random.default_rng(1).normal(size=(1, 1000))
    >>> bool(pareto_smoothed(log_weights).pareto_k[0] < 0.7)
    True
    """
    values = as_floats("log_weights", log_weights)
    if values.ndim != 2 or not values.size or np.isnan(values).any() or np.isposinf(values).any():
        raise DataError(
            "Expected log_weights of shape (num_datasets, num_samples) without NaN or inf, got "
            f"shape {values.shape}."
        )
    rows = [_smoothed_row(row) for row in values]
    return SmoothedWeights(np.stack([weights for weights, _ in rows]), np.array([k for _, k in rows]))


def effective_sample_share(log_weights: object) -> Floats:
    """Effective sample size over number of draws, (sum w)^2 / (S sum w^2), shape (num_datasets,), 0 to 1.

    Args:
        log_weights: (num_datasets, num_samples), in nats, up to a constant for each data set; best those of
            `pareto_smoothed`.

    >>> effective_sample_share([[0.0, 0.0, 0.0, 0.0], [0.0, -np.inf, -np.inf, -np.inf]]).tolist()
    [1.0, 0.25]
    """
    values = as_floats("log_weights", log_weights)
    top = values.max(axis=1, keepdims=True)
    weights = np.exp(values - np.where(np.isfinite(top), top, 0.0))
    squares = (weights**2).sum(axis=1)
    share: Floats = weights.sum(axis=1) ** 2 / np.where(squares > 0, squares, 1.0) / values.shape[1]
    return share


def largest_weight_share(log_weights: object) -> Floats:
    """Share of the heaviest draw in the total weight, (num_datasets,): 1 / S for equal weights, 0 for none.

    Args:
        log_weights: (num_datasets, num_samples), in nats, up to a constant for each data set; not
            smoothed.

    >>> largest_weight_share([[0.0, 0.0, 0.0, 0.0], [50.0, 0.0, 0.0, 0.0]]).round(3).tolist()
    [0.25, 1.0]
    """
    values = as_floats("log_weights", log_weights)
    top = values.max(axis=1, keepdims=True)
    total = np.exp(values - np.where(np.isfinite(top), top, 0.0)).sum(axis=1)
    return np.where(total > 0, 1.0, 0.0) / np.where(total > 0, total, 1.0)


def _smoothed_row(log_weights: Floats) -> tuple[Floats, float]:
    """Smoothed weights of one data set (num_samples,)."""
    top = log_weights.max()
    if not np.isfinite(top):
        return log_weights, np.inf
    shifted = log_weights - top
    size = int(np.ceil(min(0.2 * len(shifted), 3 * np.sqrt(len(shifted)))))
    if size < _FEWEST_IN_TAIL:
        return shifted - np.log(np.exp(shifted).sum()), np.inf
    cutoff = max(np.partition(shifted, -size - 1)[-size - 1], _SMALLEST_LOG)
    tail = np.flatnonzero(shifted > cutoff)  # fewer than `size` where weights are tied
    exceedances, k = np.exp(shifted[tail]) - np.exp(cutoff), np.inf
    if not len(tail) or exceedances.max() <= np.finfo(float).eps:
        k = 0.0  # nothing weighs more than what is common
    elif len(tail) >= _FEWEST_IN_TAIL:
        order = np.argsort(exceedances, kind="stable")
        k, scale = fit_generalized_pareto(np.maximum(exceedances[order], np.finfo(float).tiny))
        levels = (np.arange(len(tail)) + 0.5) / len(tail)
        quantiles = -np.log1p(-levels) if abs(k) < 1e-12 else np.expm1(-k * np.log1p(-levels)) / k
        shifted[tail[order]] = np.log(np.minimum(np.exp(cutoff) + scale * quantiles, 1.0))
    return shifted - np.log(np.exp(shifted).sum()), float(k)


def fit_generalized_pareto(exceedances: Floats) -> tuple[float, float]:
    """Shape k and scale of a generalized Pareto distribution, fitted to x > 0 in ascending order.

    The density is (1 + k x / scale)^(-1 / k - 1) / scale; k is positive for heavy tails.

    The posterior mean of b = -k / scale on a grid of quasi-prior quantiles (Zhang & Stephens); k is then
    drawn towards 0.5 as by ten more observations (Vehtari et al.).
    """
    x, n = np.asarray(exceedances, dtype=float), len(exceedances)
    points = 30 + int(np.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - np.sqrt(points / (np.arange(points) + 0.5))) / (3 * quartile)
    b = np.where(
        b == 0, np.finfo(float).eps / x[-1], b
    )  # of 100 to 120 equal ones, say; 0 / 0 has this limit
    shapes = np.log1p(-b[:, None] * x).mean(axis=1)
    log_profile = n * (np.log(-b / shapes) - shapes - 1)
    weights = np.exp(log_profile - log_profile.max())
    b_mean = float(b @ weights / weights.sum())
    shape = float(np.log1p(-b_mean * x).mean())
    drawn = (n * shape + _PRIOR_WEIGHT * _PRIOR_SHAPE) / (n + _PRIOR_WEIGHT)
    return drawn, -shape / b_mean
