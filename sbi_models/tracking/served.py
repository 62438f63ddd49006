"""The model that MLflow serves: a posterior sampler around one approximator file.

MLflow copies this file into each registered model and runs the copy when the model is loaded ("models from
code"), so nothing is pickled. It must go on working beside later versions of the package and therefore uses
only `load_approximator`, `has_draws`, names, `may_miss`, `any_length`, `shapes`, `sample`, `log_prob`,
`estimate` and `certify`, whose certificates have `verdict`, `warnings` and `as_dict`; and of a likelihood
`as_posterior`, `drawn`, whose reports have `as_dict`, and `log_likelihood`.
"""

import operator
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model

from sbi_models.approximators import load_approximator
from sbi_models.errors import DataError, SbiModelsError, data_sets_in_words, distrust, suggest
from sbi_models.numeric_input import real_array
from sbi_models.ragged import as_float64, is_ragged, leaves, real_or_ragged
from sbi_models.workflows.likelihood.implied import ImpliedPosterior, as_posterior

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # MLflow warns about the type hints of its own classes
    from mlflow.pyfunc import PythonModel

MAX_ROWS = 10_000
MAX_SAMPLES = 100_000
MAX_NUMBERS = 10_000_000
"""In one request: data sets, draws of each, and numbers in all, those that come in and those that go out."""

DEFAULT_SAMPLES = 1000
OUTPUTS = ("draws", "summary", "log_density", "log_likelihood")
LEVELS = (0.025, 0.25, 0.5, 0.75, 0.975)

ROWS_AT_ONCE = 4096
"""Draws whose density is computed in one call, so that repeated observations take little memory."""


class PosteriorSampler(PythonModel):  # type: ignore[misc]
    """Draws from the posterior given observations; see `predict`."""

    def load_context(self, context: Any) -> None:
        """Read the approximator from the file that was registered."""
        self._approximator: Any = as_posterior(load_approximator(context.artifacts["approximator"]))

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Any:
        """Posterior draws (num_datasets, num_samples, dim), float, in raw space.

        Several variables give a dict of them.

        `model_input` is {name: array of shape (num_datasets, ...)} in raw space or, if there is one condition
        only, its array; numbers are taken in float64. NaN, or null in JSON, is a missing value, if the model
        was trained with some. Data sets of different lengths, nested lists in JSON, are answered as one by
        one, to 1e-5, if the model was trained with some. A request may bring 10 000 data sets and 10 000 000
        numbers, where each data set counts as many as the longest of its variable. Params:

        - `num_samples` (1 to 100 000, default 1000), `seed` (default 0): equal seeds give equal draws. A
          request may ask for 10 000 000 numbers in all, which is num_samples times num_datasets times the
          widths of the variables.
        - `output`: "draws" (default), "summary" or "log_density"; the latter two give a dict. A summary is
          {"theta": {"mean": (num_datasets, dim), "sd": the same, "quantiles": (num_datasets, 5, dim),
          "levels": (5,)}}, of num_samples draws, two or more. With log_density,
          {"theta": draws, "log_density": (num_datasets, num_samples)} has the log posterior density of each
          draw in nats, raw space.
        - `certificate` (default false): the answer is a dict that has the certificates beside the rest:
          {"theta": draws, "certificates": [a dict for each data set]}.

        A learned likelihood gives draws and summaries of the posterior under the prior of its simulations.
        In place of certificates are reports on the draws, {"theta": draws, "reports": [a dict for each data
        set]}, and in place of "log_density" there is `output` "log_likelihood", for which the input has
        parameters, too, (num_datasets, dim) each: {"log_likelihood": (num_datasets,)} in nats, raw space,
        minus infinity outside of the support.

        Every observation is looked at: a warning (TrustWarning) says for which the draws should not be
        trusted, and why.

        Point estimators have no draws: they give a dict of estimates "rule.variable",
        (num_datasets, ..., dim), and of the params only `certificate` matters. Whatever is wrong in a request
        is an INVALID_PARAMETER_VALUE, which a server answers with HTTP 400.
        """
        asked = _options(params or {})
        if isinstance(self._approximator, ImpliedPosterior):
            try:
                return _by_likelihood(self._approximator, model_input, asked)
            except SbiModelsError as error:
                raise _invalid(str(error)) from error
        if asked.output == "log_likelihood":
            raise _invalid(
                f"Expected output as one of {', '.join(OUTPUTS[:-1])}, got {asked.output!r}: this model has "
                "a posterior, and no likelihood."
            )
        conditions = _conditions(model_input, self._approximator)
        if not self._approximator.has_draws and asked.output != "draws":
            raise _invalid(
                f"Expected no param output, got {asked.output!r}: this model has point estimates, "
                "and no draws."
            )
        try:
            answer = self._answer(conditions, asked)
            certificates = self._approximator.certify(conditions, seed=asked.seed)
        except SbiModelsError as error:
            raise _invalid(str(error)) from error
        _warn(certificates)
        if asked.certificate:
            return answer | {"certificates": [certificate.as_dict() for certificate in certificates]}
        names = self._approximator.inference_names
        return (
            answer[names[0]]
            if self._approximator.has_draws and asked.output == "draws" and len(names) == 1
            else answer
        )

    def _answer(self, conditions: dict[str, Any], asked: "Options") -> dict[str, Any]:
        approximator = self._approximator
        if not approximator.has_draws:
            estimates = approximator.estimate(conditions=conditions)
            return {
                f"{rule}.{name}": value
                for rule, values in estimates.items()
                for name, value in values.items()
            }
        _refuse_more_draws(approximator, conditions, asked)
        draws = dict(
            approximator.sample(num_samples=asked.num_samples, conditions=conditions, seed=asked.seed)
        )
        if asked.output == "summary":
            return {name: _summary(value) for name, value in draws.items()}
        return (
            draws | {"log_density": self._log_density(draws, conditions)}
            if asked.output == "log_density"
            else draws
        )

    def _log_density(self, draws: dict[str, Any], conditions: dict[str, Any]) -> Any:
        """Log posterior density of each draw, (num_datasets, num_samples), in nats, in raw space."""
        shapes = self._approximator.shapes
        num_datasets, num_samples = next(iter(draws.values())).shape[:2]
        flat = {name: value.reshape(-1, *shapes[name]) for name, value in draws.items()}
        at_once = ROWS_AT_ONCE
        if self._approximator.any_length:
            largest = max(_padded_size(value) // len(value) for value in conditions.values())
            at_once = max(1, min(ROWS_AT_ONCE, MAX_NUMBERS // max(1, largest)))
        parts = []
        for start in range(0, num_datasets * num_samples, at_once):
            rows = np.arange(start, min(start + at_once, num_datasets * num_samples))
            given = {name: value[rows // num_samples] for name, value in conditions.items()}
            parts.append(
                self._approximator.log_prob(given | {name: value[rows] for name, value in flat.items()})
            )
        return np.concatenate(parts).reshape(num_datasets, num_samples)


def _by_likelihood(model: ImpliedPosterior, model_input: Any, asked: "Options") -> Any:
    """What `PosteriorSampler.predict` gives for a learned likelihood."""
    if asked.output == "log_density":
        raise _invalid(
            "Expected output as one of draws, summary, log_likelihood, got 'log_density': this model is a "
            "learned likelihood, whose posterior density has no closed form."
        )
    if asked.output == "log_likelihood":
        if asked.certificate:
            raise _invalid("Expected no certificate with output log_likelihood, which has no draws.")
        data = _conditions(model_input, model, (*model.inference_names, *model.condition_names))
        return {"log_likelihood": model.log_likelihood(data)}
    conditions = _conditions(model_input, model)
    _refuse_more_draws(model, conditions, asked)
    draws, reports = model.drawn(num_samples=asked.num_samples, conditions=conditions, seed=asked.seed)
    answer: dict[str, Any] = dict(draws)
    if asked.output == "summary":
        answer = {name: _summary(value) for name, value in draws.items()}
    if asked.certificate:
        return answer | {"reports": [report.as_dict() for report in reports]}
    return answer if asked.output == "summary" or len(draws) > 1 else next(iter(answer.values()))


def _refuse_more_draws(model: Any, conditions: Mapping[str, Any], asked: "Options") -> None:
    n = _rows(conditions)
    width = sum(int(np.prod(model.shapes[name], dtype=int)) for name in model.inference_names)
    if n * asked.num_samples * width > MAX_NUMBERS:
        raise _invalid(
            f"Expected at most {MAX_NUMBERS} numbers in one answer, got num_samples * num_datasets * "
            f"width = {asked.num_samples} * {n} * {width}. Ask for fewer draws or data sets at a time."
        )


class Options(NamedTuple):
    """The params of a request, checked."""

    num_samples: int
    seed: int
    output: str
    certificate: bool


def _options(given: Mapping[str, Any]) -> Options:
    for name in given:
        if name not in Options._fields:
            raise _invalid(f"Unknown param {name!r:.80}. {suggest(str(name)[:80], Options._fields)}")
    output, certificate = given.get("output", "draws"), given.get("certificate", False)
    if output not in OUTPUTS:
        raise _invalid(f"Expected output as one of {', '.join(OUTPUTS)}, got {output!r:.80}.")
    if not isinstance(certificate, bool | np.bool_):
        raise _invalid(f"Expected certificate as true or false, got {certificate!r:.80}.")
    num_samples = _integer(
        "num_samples", given.get("num_samples", DEFAULT_SAMPLES), 2 if output == "summary" else 1, MAX_SAMPLES
    )
    return Options(
        num_samples, _integer("seed", given.get("seed", 0), 0, 2**63 - 1), output, bool(certificate)
    )


def _summary(draws: Any) -> dict[str, Any]:
    """Of draws (num_datasets, num_samples, dim)."""
    quantiles = np.moveaxis(np.quantile(draws, LEVELS, axis=1), 0, 1)
    return {
        "mean": draws.mean(axis=1),
        "sd": draws.std(axis=1, ddof=1),
        "quantiles": quantiles,
        "levels": list(LEVELS),
    }


def _invalid(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


def _warn(certificates: list[Any]) -> None:
    """One warning for all data sets that failed, with the reasons of the first."""
    failed = [i for i, certificate in enumerate(certificates) if certificate.verdict == "failed"]
    if failed:
        reasons = " ".join(certificates[failed[0]].warnings)
        distrust(
            f"The posterior of {data_sets_in_words(failed, len(certificates))} should not be "
            f"trusted. {reasons}"
        )


def _conditions(model_input: Any, approximator: Any, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Named float64 arrays of the input, checked for names, numbers, NaN and size.

    Those that may miss values may hold NaN or None, and those of any length may be ragged. The approximator
    checks shapes. `names` are those of the conditions, if nothing else is given.
    """
    names, may_miss = names or approximator.condition_names, approximator.may_miss
    if not isinstance(model_input, Mapping):
        if len(names) != 1:
            raise _invalid(f"Expected a dict with the arrays {', '.join(names)}, got one array.")
        model_input = {names[0]: model_input}
    for name in [*names, *model_input]:
        if name not in model_input:
            raise _invalid(f"Expected the arrays {', '.join(names)}, got none named {name!r}.")
        if name not in names:
            raise _invalid(f"Unknown array {name!r:.80}. {suggest(str(name)[:80], names)}")
    _refuse_more(
        _rows(model_input), MAX_ROWS, "data sets"
    )  # before lists become arrays, which takes longer than reading them did
    conditions = {
        name: _array(
            name, model_input[name], may_miss=name in may_miss, any_length=name in approximator.any_length
        )
        for name in names
    }
    _refuse_more(sum(map(_padded_size, conditions.values())), MAX_NUMBERS, "numbers")
    return conditions


def _refuse_more(got: int, most: int, what: str) -> None:
    if got > most:
        raise _invalid(f"Expected at most {most} {what} in one request, got {got}. Send them in parts.")


def _rows(conditions: Mapping[str, Any]) -> int:
    return max(map(_length, conditions.values()), default=1)


def _length(value: Any) -> int:
    """Of an array or a list; one of what has none, such as a number."""
    try:
        return len(value)
    except TypeError:
        return 1


def _padded_size(value: Any) -> int:
    """Numbers of a variable (n, ...), each of whose data sets counts as many as the longest."""
    if not is_ragged(value):
        return int(np.size(value))
    every = list(leaves(value))
    elements = max((leaf.size for leaf in every), default=0)
    groups = max((len(part) for part in value if is_ragged(part)), default=1)
    return len(value) * groups * elements


def _array(name: str, value: Any, *, may_miss: bool, any_length: bool) -> Any:
    try:
        read = real_or_ragged if any_length else real_array
        array = as_float64(read(_with_nan(value), f"{name!r}"))
    except DataError as error:
        raise _invalid(f"{error}") from error
    is_fine = (lambda leaf: ~np.isinf(leaf)) if may_miss else np.isfinite
    size = sum(leaf.size for leaf in leaves(array))
    bad = int(size - sum(np.count_nonzero(is_fine(leaf)) for leaf in leaves(array)))
    if bad:
        what, cure = (
            ("infinite", "Put null where values are missing.")
            if may_miss
            else ("NaN or infinite", "This model was trained without missing values. Fill or drop them.")
        )
        raise _invalid(f"Expected finite numbers in {name!r}, got {bad} of {size} that are {what}. {cure}")
    return array


def _with_nan(value: Any, levels: int = 2) -> Any:
    """Nested lists with NaN in the place of None, which JSON's null has become; anything else as it is."""
    try:
        array = np.asarray(value) if isinstance(value, list) else None
    except ValueError:  # ragged lists, of data sets or of groups in them
        return [_with_nan(item, levels - 1) for item in value] if levels else value
    if array is None or array.dtype.kind != "O" or not any(item is None for item in array.flat):
        return value
    array[np.array([item is None for item in array.flat]).reshape(array.shape)] = np.nan
    return array.tolist()


def _integer(name: str, value: Any, low: int, high: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise _invalid(f"Expected {name} as an integer from {low} to {high}, got {value!r:.80}.")
    return number


set_model(PosteriorSampler())
