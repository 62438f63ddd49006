"""Arguments of users: misspelt names are refused with the nearest one there is, numbers that cannot be with what was expected."""

import inspect
from collections.abc import Callable
from functools import wraps
from operator import index
from typing import Any, TypeVar

from sbi_models.errors import ConfigurationError, suggest

T = TypeVar("T", bound=Callable[..., Any])


def known_arguments(thing: T) -> T:
    """Decorator for a public function, or for a class and all public methods in its body.

    >>> @known_arguments
    ... def fit(epochs): ...
    >>> fit(epoch=3)
    Traceback (most recent call last):
    sbi_models.errors.ConfigurationError: fit has no argument 'epoch'. Did you mean 'epochs'? Known: epochs.
    """
    if not isinstance(thing, type):
        return _checked(thing)  # type: ignore[return-value]
    for name, member in list(vars(thing).items()):
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            setattr(thing, name, _checked(member))
        elif isinstance(member, classmethod) and not name.startswith("_"):
            setattr(thing, name, classmethod(_checked(member.__func__)))
    return thing


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
    if any(p.kind is p.VAR_KEYWORD and not _listed(p) for p in parameters):
        return function  # takes any name
    known = [name for p in parameters for name in ([p.name] if p.kind is not p.VAR_KEYWORD else _listed(p))]
    what = function.__qualname__.removesuffix(".__init__").rsplit("<locals>.", 1)[-1]

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                raise ConfigurationError(f"{what} has no argument {name!r}. {suggest(name, known)}")
        return function(*args, **kwargs)

    return checked


def _listed(parameter: inspect.Parameter) -> list[str]:
    """Names that `**options: Unpack[SomeTypedDict]` admits; none for any other annotation."""
    (options,) = getattr(parameter.annotation, "__args__", ()) or (None,)
    return list(getattr(options, "__annotations__", {}))


def positive_int(value: Any, name: str, most: int | None = None) -> int:
    """`value` as an int of at least 1, and at most `most`, from any integer type; raises ConfigurationError otherwise."""
    try:
        number = index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise ConfigurationError(f"Expected {name} as a positive integer, got {value!r}.")
    if most is not None and number > most:
        raise ConfigurationError(f"Expected {name} of at most {most}, got {value!r}. More only take longer.")
    return number
