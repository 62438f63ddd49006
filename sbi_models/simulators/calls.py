"""Calls of user functions by argument name, with checks of what they take and return."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from unicodedata import normalize

import numpy as np

from sbi_models.errors import ConfigurationError, DataError, SimulationError, is_from_outside
from sbi_models.ragged import as_ragged, is_ragged, leaves, real_or_ragged, same_bits
from sbi_models.torch_defaults import as_user
from sbi_models.types import Array

SUPPLIED = ("rng", "batch_shape", "batch_size")
"""Arguments that the simulator supplies; others come from an earlier function, `meta_fn`, or the caller."""


def function_name(function: Callable[..., Any]) -> str:
    """Name of a function, partial or callable object in messages."""
    if isinstance(function, partial):
        return function_name(function.func)
    return getattr(function, "__name__", type(function).__name__)


class FunctionFailed(Exception):
    """Exception: a user's function raised an exception, or did not end.

    `outputs` are those of the functions before it.
    """

    def __init__(self, cause: str, exception: BaseException, outputs: dict[str, Array] | None = None) -> None:
        super().__init__(cause)
        self.exception = exception
        self.outputs: dict[str, Array] = outputs or {}

    @classmethod
    def raised(cls, function: str, exception: BaseException) -> "FunctionFailed":
        """FunctionFailed for an exception that a function raised."""
        text = f"{exception}".strip()
        return cls(
            f"function {function!r} raised {type(exception).__name__}{': ' + text if text else ''}", exception
        )


class NamedCall:
    """User function with the names of its arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise ConfigurationError(
                f"Expected a function, a functools.partial or a callable object, got {function!r}. "
                'A torch distribution needs a name: {"theta": distribution}.'
            )
        self.function = function
        self.name = function_name(function)
        bound = function.keywords if isinstance(function, partial) else {}
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in bound]
        self.takes_everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.arguments = tuple(p.name for p in named)
        self.required = tuple(p.name for p in named if p.default is p.empty)

    @property
    def definition(self) -> Callable[..., Any]:
        """The function inside a partial, or the type of a callable object: what has source code."""
        function = self.function
        while isinstance(function, partial):
            function = function.func
        return function if inspect.isroutine(function) else type(function)

    @property
    def takes_rng(self) -> bool:
        """True if the function has an argument `rng`, a `numpy.random.Generator`."""
        return "rng" in self.arguments

    def __call__(self, available: Mapping[str, Any]) -> dict[str, Array]:
        """Call the function with copies of the available values that it takes; return copied outputs.

        So a function may return the same memory each time. One that changes an argument in place is refused:
        whether its caller means the value before or after is unknown. Single numbers are handed over as such.

        Raises:
            FunctionFailed: if the function itself raises.
            ConfigurationError: if a value is missing, or was changed.
            SimulationError: if what it returns cannot be used.
        """
        passed: dict[str, Any] = {}
        for name in self.arguments:
            key = name if name in available else spelt(name, available)
            if key is not None:
                passed[name] = _handed_over(available[key])
            elif name in self.required:
                raise ConfigurationError(
                    f"Function {self.name!r} takes {name!r}, which nothing before it returns. "
                    f"Available there: {', '.join(sorted(available)) or 'nothing'}. "
                    "Order the functions so that each one comes after those whose outputs it takes."
                )
        if self.takes_everything:
            known = {*self.arguments, *SUPPLIED}
            passed |= {
                name: _handed_over(value)
                for name, value in available.items()
                if normalized(name) not in known
            }
        try:
            outputs = as_user(self.function, **passed)
        except BaseException as exception:
            if is_from_outside(exception):
                raise
            raise FunctionFailed.raised(self.name, exception) from exception
        self._check_unchanged(passed, available)
        if not isinstance(outputs, Mapping):
            raise SimulationError(
                f"Function {self.name!r} must return a dict of names to arrays, "
                f'got {type(outputs).__name__}. Return for instance {{"x": x}}.'
            )
        return {str(key): self._as_array(str(key), value) for key, value in outputs.items()}

    def _check_unchanged(self, passed: Mapping[str, Any], available: Mapping[str, Any]) -> None:
        for name, value in passed.items():
            if isinstance(value, np.ndarray):
                before = available[name if name in available else spelt(name, available) or name]
                if not same_bits(np.asarray(value), np.asarray(before)):
                    raise ConfigurationError(
                        f"Expected function {self.name!r} to leave its arguments as they are, got {name!r} "
                        f"changed in place. Compute a new array, as in {name} = 100 * {name} for {name} *= "
                        f"100, or begin with {name} = {name}.copy()."
                    )

    def _as_array(self, key: str, value: Any) -> Array:
        try:
            array = real_or_ragged(value, f"{key!r} that function {self.name!r} returned", copy=True)
        except DataError as error:
            raise SimulationError(f"{error}") from None
        if is_ragged(array) and any(leaf.ndim < 2 for leaf in leaves(array)):
            raise SimulationError(
                f"Expected numbers of one shape in {key!r} that function {self.name!r} returned, got ragged "
                "lists. Only the number of elements of sets and series, N of (N, d), may differ; pad other "
                "outputs, and return a mask beside them."
            )
        return array.view(_PythonNumber) if type(value) in (int, bool) else array


class _PythonNumber(np.ndarray):
    """Array of a Python int or bool, which is passed on to the next function as a Python number."""


def like_before(value: Array, before: Array) -> Array:
    """Give a replacement value the Python number type of the value that it replaces."""
    return (
        value.view(_PythonNumber)
        if isinstance(before, _PythonNumber) and value.dtype.kind == before.dtype.kind
        else value
    )


def spelt(argument: str, names: Iterable[str]) -> str | None:
    """The name among `names` that Python takes for `argument`; None if there is none.

    Python normalizes identifiers (NFKC), but not strings.
    """
    return next((name for name in names if not name.isascii() and normalized(name) == argument), None)


def normalized(name: str) -> str:
    """Name after Python's identifier normalization (NFKC): the micro sign becomes the Greek letter."""
    return normalize("NFKC", name)


def _handed_over(value: Any) -> Any:
    """Value as a function gets it: a copy of an array, or a number where a function returned a number."""
    if not isinstance(value, np.ndarray):
        return value
    if is_ragged(value):
        return as_ragged([_handed_over(part) for part in value])
    if value.ndim:
        return value.copy()
    return value.item() if isinstance(value, _PythonNumber) else value[()]
