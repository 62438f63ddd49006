"""Errors that a user can cause; each message says what was expected, what was got, and the cure."""

import signal
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

_DEEPEST, _BETWEEN = 30, ("sbi_models", "torch", "mlflow")
"""Numbers of frames searched for the caller of a method."""


class SbiModelsError(Exception):
    """Base of all errors raised on purpose by sbi_models."""


class ConfigurationError(SbiModelsError, ValueError):
    """An argument or setting is wrong: misspelt, out of range, or at odds with another one."""


class DataError(SbiModelsError, ValueError):
    """Data do not fit: wrong shape, missing variable, NaN, unequal numbers of rows."""


class SimulationError(SbiModelsError, RuntimeError):
    """A simulator returned something that cannot be used."""


class NotFittedError(SbiModelsError, RuntimeError):
    """A method needs a trained approximator, and this one is not trained yet."""


class TrainingError(SbiModelsError, RuntimeError):
    """Training cannot go on, for instance because the loss is no longer finite."""


class ModelFileError(SbiModelsError, ValueError):
    """A saved approximator is missing, damaged, or written in another schema."""


class TrackingError(SbiModelsError, RuntimeError):
    """The tracking store or the model registry lacks what was requested."""


class DriftError(SbiModelsError, RuntimeError):
    """A model is no longer valid: posteriors not calibrated, or observations unlike its simulations.

    `found` is what there is to say of it, as JSON can hold it.
    """

    def __init__(self, message: str, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.found = dict(found or {})


class TrustWarning(UserWarning):
    """A result should not be trusted; the message says why."""


def is_from_outside(error: BaseException) -> bool:
    """True if an exception comes from outside of the code: Ctrl-C, a signal handler, a cancellation.

    A function that calls `sys.exit` itself has failed; the same exception from the handler of SIGTERM ends
    the program.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, KeyboardInterrupt) or "CancelledError" in {
        kind.__name__ for kind in type(error).__mro__
    }:
        return True
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()} - {
        None
    }
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code in handlers for frame, _ in frames)


def distrust(text: str) -> None:
    """Issue a TrustWarning at the first line outside of this package and of the libraries that call it."""
    level = 1
    while (
        level < _DEEPEST and sys._getframe(level).f_globals.get("__name__", "").partition(".")[0] in _BETWEEN
    ):
        level += 1
    warnings.warn(text, TrustWarning, stacklevel=level + 1)


def data_sets_in_words(rows: Sequence[int], total: int, most: int = 5) -> str:
    """Rows of the user's arrays in words, by their indices.

    >>> data_sets_in_words([1], 5)
    'data set 1 of 5 (counted from 0)'
    >>> data_sets_in_words([1, 2, 7], 9, most=2)
    'data sets 1, 2 and 1 more of 9 (counted from 0)'
    """
    if len(rows) == 1:
        return f"data set {rows[0]} of {total} (counted from 0)"
    *first, last = [*map(str, rows[:most]), *([f"{len(rows) - most} more"] if len(rows) > most else [])]
    return f"data sets {', '.join(first)} and {last} of {total} (counted from 0)"


def suggest(name: str, known: Iterable[str], label: str = "Known") -> str:
    """End of an error message about an unknown name: the nearest known name, and all of them.

    >>> suggest("deepset", ["deep_set", "flow_matching"])
    "Did you mean 'deep_set'? Known: deep_set, flow_matching."
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}{label}: {', '.join(names) or 'none'}."
