"""Limits for classes built from saved files: argument types and ranges, and the size of tensors."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import torch
from torch.overrides import TorchFunctionMode

from sbi_models.errors import ModelFileError

_FEWEST = 1_000_000
"""Numbers that any file may request, however small: constants of networks, numbers of steps, sizes of sets.
"""

_TIMES = 4
"""Numbers that may be created for each one in the file: networks try their arguments on small layers first.
"""

_SHOWN = 60
"""Characters of a value in a message."""

_most: ContextVar[float] = ContextVar(
    "largest whole number among the arguments of networks", default=math.inf
)


_FACTORIES = (
    *(
        torch.empty,
        torch.zeros,
        torch.ones,
        torch.full,
        torch.rand,
        torch.randn,
        torch.randint,
        torch.randperm,
        torch.arange,
        torch.eye,
    ),
    *(torch.linspace, torch.logspace, torch.normal, torch.tril_indices, torch.triu_indices),
)
"""Torch functions that create tensors of sizes among their arguments."""


class _Allotted(TorchFunctionMode):
    """Torch function mode that refuses tensors of more numbers than are left, before memory is taken."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _FACTORIES:
            return func(*args, **(kwargs or {}))
        sizes = [
            n
            for value in (*args, *(kwargs or {}).values())
            for n in (value if isinstance(value, list | tuple) else [value])
        ]
        axes = [n for n in sizes if type(n) is int and n > 1]
        if math.prod(axes) > self.left:
            raise ModelFileError(
                f"its settings ask for {' x '.join(map(str, axes))} numbers at once, more than its "
                "tensors are"
            )
        made = func(*args, **(kwargs or {}))
        self.left -= made.numel()
        return made


@contextmanager
def allotted(numbers: int) -> Iterator[None]:
    """Context manager for building what a file describes, given how many numbers its tensors hold.

    Layers of more are refused before they are allocated, and so are larger whole numbers among the arguments
    of networks.

    Raises:
        ModelFileError: in the context.
    """
    token = _most.set(_FEWEST + numbers)
    try:
        with _Allotted(_TIMES * (_FEWEST + numbers)):
            yield
    finally:
        _most.reset(token)


def check_arguments(cls: type, arguments: Any, what: str, *, sizes: bool) -> None:
    """Raise ModelFileError unless JSON values have the types annotated in a constructor of this package.

    Classes of others answer for theirs: their annotations may be loose.

    Args:
        cls: the class that is about to be made.
        arguments: arguments of the class by name.
        what: name of the class, for messages.
        sizes: whether whole numbers are sizes of layers, which `allotted` bounds.
    """
    if not isinstance(arguments, dict):
        raise ModelFileError(_expected(f"the arguments of {what}", "an object", arguments))
    if not cls.__module__.startswith("sbi_models."):
        return
    hints = get_type_hints(vars(cls).get("__init__", cls.__init__))  # type: ignore[misc]
    for name, value in arguments.items():
        if name in hints and (
            found := misfit(value, hints[name], f"{name} of {what}", _most.get() if sizes else math.inf)
        ):
            raise ModelFileError(found)


def misfit(value: Any, hint: Any, where: str, most: float = math.inf) -> str | None:  # noqa: PLR0911 - one for each kind of type
    """Mismatch of a JSON value with a type, in words; None if it fits.

    Types that JSON cannot hold and that are not known here admit anything.

    Args:
        value: the value, as JSON gives it.
        hint: type, as in an annotation; `Annotated[int, (low, high)]` bounds a number, a TypedDict lists all
            keys of an object.
        where: what the value is, for the message.
        most: the largest size of whole numbers, which may be written as floats.

    >>> misfit([3, "x"], list[int], "widths")
    "widths[1]: expected a whole number, got 'x'"
    >>> misfit({"widths": [3]}, dict[str, list[int]], "settings")
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return None
    if origin is Annotated:
        low, high = parts[1]
        fits = misfit(value, int, where, most) is None and low <= value <= high
        return None if fits else _expected(where, f"a whole number from {low} to {high}", value)
    if origin in (Union, UnionType):
        found = [misfit(value, part, where, most) for part in parts]
        return (
            None
            if None in found
            else next((text for text in found if text and not text.startswith(f"{where}: ")), found[0])
        )
    if is_typeddict(hint):
        hints = {name: _required(part) for name, part in get_type_hints(hint, include_extras=True).items()}
        there = value if isinstance(value, dict) else {}
        optional = [name for name in hint.__optional_keys__ if name not in there]
        return _misfit_of_keys(value, {k: v for k, v in hints.items() if k not in optional}, where)
    if origin is Literal:
        return None if value in parts else _expected(where, f"one of {', '.join(map(repr, parts))}", value)
    if hint is int:
        return (
            None
            if _is_real(value) and value == int(value) and abs(value) <= most
            else _expected(where, _whole(value, most), value)
        )
    for kind, words, fits_kind in _PLAIN:
        if hint is kind:
            return None if fits_kind(value) else _expected(where, words, value)
    if isinstance(origin, type) and issubclass(origin, Mapping | Sequence):
        is_object = issubclass(origin, Mapping)
        return _misfit_inside(value, parts[1 if is_object else 0], where, most, is_object=is_object)
    if origin is type or (isinstance(hint, type) and not isinstance(value, hint)):
        return _expected(where, "a name" if origin is type else hint.__name__, value)
    return None


def _required(hint: Any) -> Any:
    """The type of a key that may be left out."""
    return get_args(hint)[0] if get_origin(hint) is NotRequired else hint


def _misfit_inside(value: Any, hint: Any, where: str, most: float, *, is_object: bool) -> str | None:
    if not isinstance(
        value, dict if is_object else list | tuple
    ):  # tuples are lists in files, and settings may come from no file
        return _expected(where, "an object" if is_object else "a list", value)
    pairs = (
        [(f".{key}", item) for key, item in value.items()]
        if isinstance(value, dict)
        else [(f"[{k}]", v) for k, v in enumerate(value)]
    )
    items = [(where + place, item) for place, item in pairs]
    return next((text for place, item in items if (text := misfit(item, hint, place, most))), None)


def _misfit_of_keys(value: Any, hints: Mapping[str, Any], where: str) -> str | None:
    if not isinstance(value, dict):
        return _expected(where, "an object", value)
    if missing := [name for name in hints if name not in value]:
        return f"{where}: expected {', '.join(hints)}, got no {missing[0]!r}"
    if others := [name for name in value if name not in hints]:
        return f"{where}: expected {', '.join(hints)}, got {_short(others[0])}, too"
    return next(
        (text for name, hint in hints.items() if (text := misfit(value[name], hint, f"{where}.{name}"))), None
    )


def _is_real(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


_PLAIN: list[tuple[Any, str, Callable[[Any], bool]]] = [
    (NoneType, "null", lambda value: value is None),
    (bool, "true or false", lambda value: isinstance(value, bool)),
    (str, "text", lambda value: isinstance(value, str)),
    (float, "a finite number", _is_real),
    (dict, "an object", lambda value: isinstance(value, dict)),
    (list, "a list", lambda value: isinstance(value, list | tuple)),
]


def _whole(value: Any, most: float) -> str:
    return (
        f"a whole number of at most {most:.0f}, for a file of this size"
        if _is_real(value) and abs(value) > most
        else "a whole number"
    )


def _expected(where: str, words: str, value: Any) -> str:
    return f"{where}: expected {words}, got {_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
