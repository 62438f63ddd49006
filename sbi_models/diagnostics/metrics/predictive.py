"""Posterior predictive checks: ranks of observed statistics among those of predicted data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite
from sbi_models.errors import DataError

Statistic = Callable[[Floats], Any]
"""From values (..., size), the numbers of each data set in one row, to one number each, (...)."""

STATISTICS: dict[str, Statistic] = {
    "mean": lambda values: values.mean(axis=-1),
    "standard deviation": lambda values: values.std(axis=-1),
    "smallest": lambda values: values.min(axis=-1),
    "largest": lambda values: values.max(axis=-1),
}


@dataclass(frozen=True)
class PredictiveCheck:
    """Statistics of observed and predicted data with two-sided p-values.

    `names` has the K statistics; `observed` and `p_values` have shape (num_datasets, K), `predictive`
    (num_datasets, num_samples, K).
    """

    names: tuple[str, ...]
    observed: Floats
    predictive: Floats
    p_values: Floats


def predictive_check(
    predictive: object, observed: object, statistics: Mapping[str, Statistic] | None = None
) -> PredictiveCheck:
    """Rank of statistics of the observed data among those of data simulated with posterior draws.

    The p-value is twice the smaller of the shares, observed one included, that lie as low and as high. Small
    ones say that the model, or the posterior, misses this side of the data; as the data were used to fit,
    they are cautious: right models give values near 0 less often than a uniform would.

    Args:
        predictive: simulated data, shape (num_datasets, num_samples, ...), any space.
        observed: the data, shape (num_datasets, ...), in the same space.
        statistics: functions by name, from (..., size), all numbers of a data set in one row, to (...); by
            default mean, standard deviation, smallest, and largest.

    Raises:
        DataError: arrays that do not fit or are not finite, no statistics, or one that returns another shape.

    References:
        Gelman, Meng, Stern (1996), Posterior predictive assessment of model fitness via realized
        discrepancies, Statistica Sinica 6.

    >>> rng = np.random.default_rng(1)
    >>> check = predictive_check(rng.normal(size=(2, 99, 20)), rng.normal(size=(2, 20)))
    >>> check.names, check.p_values.shape
    (('mean', 'standard deviation', 'smallest', 'largest'), (2, 4))
    """
    simulated, data = as_floats("predictive", predictive), as_floats("observed", observed)
    if simulated.ndim < 2 or not simulated.size or data.shape != (len(simulated), *simulated.shape[2:]):
        raise DataError(
            "Expected predictive of shape (num_datasets, num_samples, ...) and observed of shape "
            f"(num_datasets, ...), got {simulated.shape} and {data.shape}. Simulate data of the observed "
            "shape for each posterior draw."
        )
    check_finite("predictive", simulated)
    check_finite("observed", data)
    n, num_samples = simulated.shape[:2]
    functions = STATISTICS if statistics is None else dict(statistics)
    if not functions:
        raise DataError("Expected at least one statistic, got none. Leave statistics out for the usual ones.")
    of_simulated = _computed(functions, simulated.reshape(n, num_samples, -1))
    of_data = _computed(functions, data.reshape(n, -1))
    low = (np.sum(of_simulated <= of_data[:, None], axis=1) + 1.0) / (num_samples + 1.0)
    high = (np.sum(of_simulated >= of_data[:, None], axis=1) + 1.0) / (num_samples + 1.0)
    return PredictiveCheck(
        tuple(functions), of_data, of_simulated, np.minimum(2.0 * np.minimum(low, high), 1.0)
    )


def _computed(functions: Mapping[str, Statistic], values: Floats) -> Floats:
    columns = []
    for name, function in functions.items():
        column = as_floats(f"statistic {name!r}", function(values))
        if column.shape != values.shape[:-1]:
            raise DataError(
                f"Expected the statistic {name!r} to make shape {values.shape[:-1]} of values of shape "
                f"{values.shape}, got {column.shape}. Let it reduce the last axis alone."
            )
        check_finite(f"statistic {name!r}", column)
        columns.append(column)
    return np.stack(columns, axis=-1)
