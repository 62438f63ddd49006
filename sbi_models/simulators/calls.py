"""Calling a user's function by name: what it takes, and whether what it returned can be used."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.types import Array

SUPPLIED = ("rng", "batch_shape", "batch_size")
"""Arguments that the simulator itself supplies; every other one comes from an earlier function, `meta_fn`, or the caller."""


def function_name(function: Callable[..., Any]) -> str:
    """The name under which messages speak of a function, a partial, or a callable object."""
    if isinstance(function, partial):
        return function_name(function.func)
    return getattr(function, "__name__", type(function).__name__)


class FunctionFailed(Exception):
    """A user's function raised an exception; `outputs` are those of the functions before it."""

    def __init__(self, function: str, exception: Exception) -> None:
        text = f"{exception}".strip()
        super().__init__(f"function {function!r} raised {type(exception).__name__}{': ' + text if text else ''}")
        self.exception = exception
        self.outputs: dict[str, Array] = {}


class NamedCall:
    """A function of the user together with the names of the arguments it takes."""

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
        """True if the function draws from a `numpy.random.Generator` argument named rng, not from NumPy's global state."""
        return "rng" in self.arguments

    def __call__(self, available: Mapping[str, Any]) -> dict[str, Array]:
        """Call with those of the available values that it takes; returns its outputs as arrays, by name.

        Raises:
            FunctionFailed: if the function itself raises.
            ConfigurationError: if a value is missing.
            SimulationError: if what it returns cannot be used.
        """
        missing = [name for name in self.required if name not in available]
        if missing:
            raise ConfigurationError(
                f"Function {self.name!r} takes {missing[0]!r}, which nothing before it returns. "
                f"Available there: {', '.join(sorted(available)) or 'nothing'}. "
                "Order the functions so that each one comes after those whose outputs it takes."
            )
        passed = {k: v for k, v in available.items() if k in self.arguments or (self.takes_everything and k not in SUPPLIED)}
        try:
            outputs = self.function(**passed)
        except Exception as exception:
            raise FunctionFailed(self.name, exception) from exception
        if not isinstance(outputs, Mapping):
            raise SimulationError(
                f"Function {self.name!r} must return a dict of names to arrays, got {type(outputs).__name__}. Return for instance "
                '{"x": x}.'
            )
        return {str(key): self._as_array(str(key), value) for key, value in outputs.items()}

    def _as_array(self, key: str, value: Any) -> Array:
        try:
            array = np.asarray(value)
        except ValueError:
            raise SimulationError(
                f"Function {self.name!r} returned {key!r} as ragged lists; expected numbers of one shape. Pad them and return a mask too."
            ) from None
        if array.dtype.kind not in "fiub":
            raise SimulationError(f"Function {self.name!r} returned {key!r} of type {array.dtype}; expected numbers.")
        return array
