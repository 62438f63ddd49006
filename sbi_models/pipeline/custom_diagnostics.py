"""The user's own metrics and figures in a pipeline run, which an experiment names by import path.

Each is a function as `workflow.compute_custom_diagnostics` takes it, for instance in `mine.py` beside the
YAML file that says `diagnose: {custom: [mine:mean_error]}`:

    def mean_error(samples, test_data, variable_keys, variable_names):
        return float((samples["theta"].mean(axis=1) - test_data["theta"]).mean())
"""

from collections.abc import Callable, Mapping
from inspect import signature
from numbers import Real
from typing import Any

import numpy as np

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.import_paths import load_object
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.outcomes import Results
from sbi_models.tracking.names import keys_of, name_tags
from sbi_models.types import Variables

Custom = Callable[..., Any]

_ARGUMENTS = "(samples, test_data, variable_keys, variable_names)"


def custom_functions(experiment: Experiment) -> dict[str, Custom]:
    """The functions that `diagnose.custom` names, by import path.

    Raises:
        ConfigurationError: if there is nothing at a path, or something that cannot be called so.
    """
    functions = {}
    for path in experiment.diagnose.custom:
        function = load_object(path, experiment.folder)
        if not callable(function):
            raise ConfigurationError(
                f"Expected a function{_ARGUMENTS} at {path!r} in diagnose.custom, got "
                f"{type(function).__name__}. Name a function."
            )
        try:
            signature(function).bind({}, {}, variable_keys=[], variable_names=[])
        except TypeError as error:
            raise ConfigurationError(
                f"Expected {path!r} in diagnose.custom to take {_ARGUMENTS}, got a function for which "
                f"this fails: {error}. Name its arguments so."
            ) from None
        except ValueError:  # a function of compiled code, whose arguments are not known
            pass
        functions[path] = function
    return functions


def run_custom(
    functions: Mapping[str, Custom],
    draws: Variables,
    test: Variables,
    results: Results,
    *,
    variable_keys: list[str],
    variable_names: list[str],
) -> dict[str, Any]:
    """Call the functions; numbers become metrics `custom.KEY`, figures files `figures/custom_KEY.png`.

    Args:
        functions: functions by label, as `custom_functions` gives them.
        draws: posterior draws, name to (num_datasets, num_samples, width), raw space.
        test: all variables of the test simulations, name to (num_datasets, ...), raw space.
        results: writer of the files.
        variable_keys: names of the inferred variables.
        variable_names: names of all their components.

    Returns:
        The fields `custom` and `custom_figures` of a `ModelDiagnosis`.

    Raises:
        ConfigurationError: if a function returns something else.
    """
    numbers: dict[str, float] = {}
    figures: dict[str, Any] = {}
    for path, function in functions.items():
        value = function(draws, test, variable_keys=list(variable_keys), variable_names=list(variable_names))
        if hasattr(value, "savefig"):
            figures[path] = value
        else:
            numbers |= _numbers(path, value, variable_names)
    keys, files = keys_of(numbers), keys_of(figures)
    results.metrics |= {f"custom.{keys[label]}": value for label, value in numbers.items()}
    results.tags |= name_tags("custom", keys) | name_tags("custom_figure", files)
    results.figures({f"custom_{files[label]}": figure for label, figure in figures.items()})
    return {
        "custom": numbers,
        "custom_figures": {label: f"figures/custom_{files[label]}.png" for label in figures},
    }


def _numbers(path: str, value: Any, names: list[str]) -> dict[str, float]:
    """Numbers by label: a single one by its path, those of a dict or an array by path and name."""
    if isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return {path: float(value)}
    if isinstance(value, Mapping) and all(isinstance(number, Real) for number in value.values()):
        return {f"{path} {name}": float(number) for name, number in value.items()}
    if isinstance(value, np.ndarray) and value.shape == (len(names),) and value.dtype.kind in "fiub":
        return {f"{path} {name}": float(number) for name, number in zip(names, value, strict=True)}
    raise ConfigurationError(
        f"Expected a number, numbers by name, an array with one number for each of {len(names)} parameters, "
        f"or a figure from {path!r}, got {type(value).__name__}. Return one of them."
    )
