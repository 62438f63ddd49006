"""The model that MLflow serves: a posterior sampler around one approximator file.

MLflow copies this file into each registered model and runs the copy when the model is loaded ("models from code"), so nothing is pickled.
It must go on working beside later versions of the package and therefore uses only `load_approximator`, `has_draws`, `sample`,
`estimate` and `certify`, whose certificates have `verdict`, `warnings` and `as_dict`.
"""

import operator
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model

from sbi_models.approximators import load_approximator
from sbi_models.errors import SbiModelsError, TrustWarning, suggest

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

        Every observation is looked at: a warning (TrustWarning) says for which the draws should not be trusted, and why. With the param
        `certificate` (default false) the answer is a dict that has the certificates beside the draws of each variable, in any case:
        {"theta": draws, "certificates": [a dict for each data set]}.

        Point estimators have no draws: they give a dict of estimates "rule.variable", (n_datasets, ..., dim), and of the params only
        `certificate` matters.
        """
        options = params or {}
        num_samples = _integer("num_samples", options.get("num_samples", DEFAULT_SAMPLES), 1, MAX_SAMPLES)
        seed = _integer("seed", options.get("seed", 0), 0, 2**63 - 1)
        conditions = _conditions(model_input, self._approximator.condition_names)
        asked = options.get("certificate", False)
        if not isinstance(asked, bool | np.bool_):
            raise MlflowException.invalid_parameter_value(f"Expected certificate as true or false, got {asked!r:.80}.")
        approximator = self._approximator
        try:
            if approximator.has_draws:
                answer = dict(approximator.sample(num_samples=num_samples, conditions=conditions, seed=seed))
            else:
                estimates = approximator.estimate(conditions=conditions)
                answer = {f"{rule}.{name}": value for rule, values in estimates.items() for name, value in values.items()}
            certificates = approximator.certify(conditions, seed=seed)
        except SbiModelsError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        _warn(certificates)
        if asked:
            return answer | {"certificates": [certificate.as_dict() for certificate in certificates]}
        names = approximator.inference_names
        return answer[names[0]] if approximator.has_draws and len(names) == 1 else answer


def _warn(certificates: list[Any]) -> None:
    """One warning for all data sets that failed, with the reasons of the first."""
    failed = [i for i, certificate in enumerate(certificates) if certificate.verdict == "failed"]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        reasons = " ".join(certificates[failed[0]].warnings)
        warnings.warn(f"The posterior of data set {failed[0]}{more} should not be trusted. {reasons}", TrustWarning, stacklevel=3)


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
