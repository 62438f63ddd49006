"""Parameter recovery: point estimates against true values, and errors relative to the prior."""

from typing import Literal, get_args

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_level, check_samples
from sbi_models.diagnostics.metrics.registry import default_metric
from sbi_models.errors import ConfigurationError, DataError, suggest

Estimate = Literal["mean", "median"]


def point_estimate(samples: object, kind: Estimate = "mean") -> Floats:
    """Posterior mean or median of each data set and parameter.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        kind: "mean" or "median".

    Returns:
        Shape (num_datasets, dim), in the unit of the parameter.

    Raises:
        DataError: not three axes of real numbers.
        ConfigurationError: another kind.

    >>> point_estimate([[[0.0], [1.0], [5.0]]], "median").tolist()
    [[1.0]]
    """
    if kind not in get_args(Estimate):
        raise ConfigurationError(
            f"Expected 'mean' or 'median' as point estimate, got {kind!r}. "
            f"{suggest(str(kind), get_args(Estimate))}"
        )
    draws = _draws(samples)
    estimate: Floats = draws.mean(axis=1) if kind == "mean" else np.median(draws, axis=1)
    return estimate


def central_interval(samples: object, level: float = 0.95) -> tuple[Floats, Floats]:
    """Central interval between the (1 - level) / 2 and (1 + level) / 2 quantiles of the draws.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        level: coverage level of the interval.

    Returns:
        Lower and upper ends, each of shape (num_datasets, dim), in the unit of the parameter.

    Raises:
        DataError: not three axes of real numbers.
        ConfigurationError: the level is not inside (0, 1).

    >>> lower, upper = central_interval(np.linspace(0.0, 1.0, 101)[None, :, None], 0.9)
    >>> lower.round(2).tolist(), upper.round(2).tolist()
    ([[0.05]], [[0.95]])
    """
    tail = (1.0 - check_level(level)) / 2.0
    lower, upper = np.quantile(_draws(samples), [tail, 1.0 - tail], axis=1)
    return lower, upper


def pearson_r(estimate: object, truth: object) -> Floats:
    """Pearson correlation of point estimates with true values over data sets.

    Args:
        estimate: shape (num_datasets, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.

    Returns:
        Shape (dim,), in [-1, 1]; NaN for a parameter whose estimates or true values are constant.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.

    >>> pearson_r([[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]]).tolist()
    [1.0]
    """
    draws, true = check_samples(as_floats("estimate", estimate)[:, None, ...], truth, min_datasets=2)
    x, y = (values - values.mean(axis=0) for values in (draws[:, 0], true))
    spread = np.sqrt(np.sum(x**2, axis=0) * np.sum(y**2, axis=0))
    varied = (np.ptp(draws[:, 0], axis=0) > 0.0) & (np.ptp(true, axis=0) > 0.0) & (spread > 0.0)
    r: Floats = np.where(varied, np.sum(x * y, axis=0) / np.where(varied, spread, 1.0), np.nan)
    return np.clip(r, -1.0, 1.0)


@default_metric("NRMSE", "0 is best", row=0)
def nrmse(samples: object, truth: object) -> Floats:
    """Root mean squared error of draws relative to that of draws from the prior: 1 is the prior, 0 perfect.

        median_i sqrt(mean_s (draw_is - truth_i)^2) / median_i sqrt(var(truth) + (mean(truth) - truth_i)^2)

    The true values of the test data stand for the prior, all of them for each data set, so that the
    denominator has the closed form above (var with ddof = 0), needs no random number, and is the same in
    every run. A posterior that is right scores near sqrt(posterior variance / prior variance).

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.

    Returns:
        Shape (dim,), no unit; NaN for a parameter that is constant in the test data, for which the prior
        makes no error.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.

    >>> truth = np.random.default_rng(1).normal(size=(100, 1))
    >>> nrmse(np.repeat(truth[:, None], 10, axis=1), truth).tolist()
    [0.0]
    """
    draws, true = check_samples(samples, truth, min_datasets=2)
    error = draws - true[:, None, :]
    posterior = np.median(np.sqrt(np.einsum("nsd,nsd->nd", error, error) / draws.shape[1]), axis=0)
    prior = np.median(np.sqrt(true.var(axis=0) + (true.mean(axis=0) - true) ** 2), axis=0)
    varied = np.ptp(true, axis=0) > 0.0
    ratio: Floats = np.where(varied, posterior / np.where(varied, prior, 1.0), np.nan)
    return ratio


def _draws(samples: object) -> Floats:
    draws = as_floats("samples", samples)
    if draws.ndim != 3 or draws.shape[1] < 1:
        raise DataError(
            "Expected samples of shape (num_datasets, num_samples, dim) with a draw or more, got shape "
            f"{draws.shape}. Add the missing axis, for instance samples[..., None] for one parameter."
        )
    return draws
