"""The model that MLflow serves: a posterior sampler around one approximator file.

MLflow copies this file into each registered model and runs the copy when the model is loaded ("models from code"), so nothing is pickled.
It must go on working beside later versions of the package and therefore uses only `load_approximator`, `has_draws`, `sample` and
`estimate`.
"""

import operator
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model

from sbi_models.approximators import load_approximator
from sbi_models.errors import SbiModelsError, suggest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # MLflow warns about the type hints of its own classes
    from mlflow.pyfunc import PythonModel

MAX_SAMPLES = 100_000
DEFAULT_SAMPLES = 1000


class PosteriorSampler(PythonModel):  # type: ignore[misc]
    """Draws from the posterior given observations; see `predict`."""

    def load_context(self, context: Any) -> None:
        """Read the approximator from the file that was registered."""
        self._approximator = load_approximator(context.artifacts["approximator"])

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Any:
        """Posterior draws in raw space, float, of shape (n_datasets, num_samples, dim); a dict of them if there are several variables.

        `model_input` is {name: array of shape (n_datasets, ...)} in raw space or, if there is one condition only, its array. The params are
        `num_samples` (1 to 100 000, default 1000) and `seed` (default 0): equal seeds give equal draws.

        Point estimators have no draws: they give a dict of estimates "rule.variable", (n_datasets, ..., dim), and the params do not matter.
        """
        options = params or {}
        num_samples = _integer("num_samples", options.get("num_samples", DEFAULT_SAMPLES), 1, MAX_SAMPLES)
        seed = _integer("seed", options.get("seed", 0), 0, 2**63 - 1)
        conditions = _conditions(model_input, self._approximator.condition_names)
        try:
            if not self._approximator.has_draws:
                estimates = self._approximator.estimate(conditions=conditions)
                return {f"{rule}.{name}": value for rule, values in estimates.items() for name, value in values.items()}
            draws = self._approximator.sample(num_samples=num_samples, conditions=conditions, seed=seed)
        except SbiModelsError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        names = self._approximator.inference_names
        return draws[names[0]] if len(names) == 1 else dict(draws)


def _conditions(model_input: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The named float32 arrays in the input, checked for names, numbers and NaN; shapes are checked by the approximator."""
    if not isinstance(model_input, Mapping):
        if len(names) != 1:
            raise MlflowException.invalid_parameter_value(f"Expected a dict with the arrays {', '.join(names)}, got one array.")
        model_input = {names[0]: model_input}
    for name in [*names, *model_input]:
        if name not in model_input:
            raise MlflowException.invalid_parameter_value(f"Expected the arrays {', '.join(names)}, got none named {name!r}.")
        if name not in names:
            raise MlflowException.invalid_parameter_value(f"Unknown array {name!r}. {suggest(str(name), names)}")
    return {name: _array(name, model_input[name]) for name in names}


def _array(name: str, value: Any) -> Any:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value).astype(np.float32)
    except (TypeError, ValueError) as error:
        message = f"Expected {name!r} as a regular array of numbers, got {type(value).__name__} that cannot be made one."
        raise MlflowException.invalid_parameter_value(message) from error
    bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise MlflowException.invalid_parameter_value(
            f"Expected finite numbers (in float32) in {name!r}, got {bad} of {array.size} that are NaN or infinite. Fill or drop them."
        )
    return array


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise MlflowException.invalid_parameter_value(f"Expected {name} as an integer from {low} to {high}, got {value!r:.80}.")
    return number


set_model(PosteriorSampler())
