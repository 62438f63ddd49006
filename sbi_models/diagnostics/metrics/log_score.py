"""Log score: the log density that posteriors give to the truth, with its standard error."""

from typing import NamedTuple

import numpy as np

from sbi_models.diagnostics.metrics.checks import as_floats
from sbi_models.errors import DataError


class LogScore(NamedTuple):
    """Mean log density of held-out true parameters in nats, and its standard error over data sets."""

    mean: float
    error: float


def log_score(log_density: object, baseline: object = None) -> LogScore:
    """Mean of log q(truth | x) over held-out simulations in nats: larger is better.

    In expectation the right posterior has the largest.

    With a baseline, the mean of the differences, whose standard error is much smaller than those of the two:
    above 0 the first is better. The difference to the exact posterior is minus the Kullback-Leibler
    divergence, averaged over data.

    Args:
        log_density: log density of each true parameter vector given its data, shape (num_datasets,), in nats,
            as `log_prob(test_data)` gives it.
        baseline: log density of another approximator, or of the prior, on the same data sets and in the same
            space.

    Raises:
        DataError: fewer than 2 data sets, shapes that differ, NaN, or a density of 0 (-inf), which makes the
            score -inf.

    >>> score = log_score([-1.0, -2.0, -3.0])
    >>> score.mean
    -2.0
    """
    values = as_floats("log_density", log_density)
    if baseline is not None:
        other = as_floats("baseline", baseline)
        if other.shape != values.shape:
            raise DataError(
                f"Expected a baseline of shape {values.shape}, got {other.shape}. Score both on "
                "the same data sets."
            )
        values = values - other
    if values.ndim != 1 or len(values) < 2:
        raise DataError(
            "Expected log densities of shape (num_datasets,) with 2 data sets or more, got shape "
            f"{values.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise DataError(
            f"Expected finite log densities, got {values[bad[0]]} for data set {bad[0]} (counted from 0) "
            f"and {bad.size - 1} more. A true parameter outside the support of the approximator has -inf: "
            "see how it can be there."
        )
    return LogScore(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
