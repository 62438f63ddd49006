"""Registry of the metrics in the default table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats
from sbi_models.registry import Registry

F = TypeVar("F", bound=Callable[..., Floats])


@dataclass(frozen=True)
class Metric:
    """Metric of posterior draws, one number per parameter.

    Attributes:
        function: maps samples (num_datasets, S, dim) and truth (num_datasets, dim), raw space, to numbers
            (dim,), or (num_datasets, dim), of which the table has the median over data sets.
        reading: good values, in a few words.
        row: position in the default table.
    """

    function: Callable[..., Floats]
    reading: str
    row: int

    def __call__(self, samples: Floats, truth: Floats) -> Floats:
        """One number per parameter, shape (dim,)."""
        values = self.function(samples, truth)
        return np.asarray(np.median(values, axis=0)) if values.ndim > 1 else values


METRICS: Registry[Metric] = Registry("metric")
"""Metrics of the default table by the name of their row."""


def default_metric(name: str, reading: str, row: int) -> Callable[[F], F]:
    """Decorator that puts a metric into the default table.

    Args:
        name: name of the row.
        reading: good values, in a few words.
        row: position in the table.
    """

    def add(function: F) -> F:
        METRICS.register(name)(Metric(function, reading, row))
        return function

    return add
