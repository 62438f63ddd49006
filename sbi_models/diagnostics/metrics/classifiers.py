"""Classifiers of two-sample tests by name; scikit-learn is imported when one is created."""

from typing import Any, Literal, get_args

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite
from sbi_models.errors import ConfigurationError, DataError, suggest

Classifier = Literal["mlp", "random_forest"]
"""Classifier of two-sample tests: a network with two hidden layers, or a random forest."""


def classifier_named(name: Classifier, width: int, seed: int) -> Any:
    """A scikit-learn classifier of inputs of `width` numbers.

    - "mlp": two hidden layers of 10 * width ReLU units, trained by Adam until the loss stands still or for 10
      000 epochs, as Lueckmann et al. (2021) do;
    - "random_forest": 200 trees with leaves of 5 or more; quicker, and needs no scaling.

    Raises:
        ConfigurationError: another name.
    """
    if name not in get_args(Classifier):
        raise ConfigurationError(f"Unknown classifier {name!r}. {suggest(str(name), get_args(Classifier))}")
    state = seed % 2**32
    if name == "mlp":
        from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 - slow to import

        units = (10 * width, 10 * width)
        return MLPClassifier(
            activation="relu", hidden_layer_sizes=units, solver="adam", max_iter=10_000, random_state=state
        )
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - slow to import

    return RandomForestClassifier(n_estimators=200, min_samples_leaf=5, random_state=state)


def check_pair(first: object, second: object, *, least: int = 2) -> tuple[Floats, Floats]:
    """Two sets of draws as finite arrays (n, dim) and (m, dim), each of at least `least` draws.

    Raises DataError otherwise.
    """
    a, b = as_floats("first", first), as_floats("second", second)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1]:
        raise DataError(
            f"Expected two sets of draws of shapes (n, dim) and (m, dim), got {a.shape} and {b.shape}."
        )
    if min(len(a), len(b)) < least:
        raise DataError(f"Expected at least {least} draws in each set, got {len(a)} and {len(b)}. Draw more.")
    check_finite("first", a)
    check_finite("second", b)
    return a, b


def z_scaling(values: Floats) -> tuple[Floats, Floats]:
    """Mean and sd of each column, with 1 for the sd of a constant."""
    sd = values.std(axis=0)
    return values.mean(axis=0), np.where(sd > 0.0, sd, 1.0)
