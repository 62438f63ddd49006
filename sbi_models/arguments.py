"""Checks of user arguments: misspelt and missing names, and numbers out of range.

The door of public calls is here, too: `known_arguments` puts aside what users have set for all of PyTorch.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from operator import index
from typing import Any, TypeVar

from sbi_models.errors import ConfigurationError, suggest
from sbi_models.torch_defaults import aside

T = TypeVar("T", bound=Callable[..., Any])


def known_arguments(thing: T) -> T:
    """Decorator for a public function, or for a class and all public methods in its body.

    Unknown and missing arguments are a ConfigurationError. Calls are without the user's default device and
    inference mode of PyTorch.

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
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    takes_any = any(p.kind is p.VAR_KEYWORD and not _listed(p) for p in parameters)
    known = [name for p in parameters for name in ([p.name] if p.kind is not p.VAR_KEYWORD else _listed(p))]
    what = function.__qualname__.removesuffix(".__init__").rsplit("<locals>.", 1)[-1]

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if not takes_any and name not in known:
                raise ConfigurationError(f"{what} has no argument {name!r}. {suggest(name, known)}")
        try:
            return aside(function, *args, **kwargs)
        except TypeError:
            _refuse_unbound(signature, what, args, kwargs)
            raise

    return checked


def _refuse_unbound(
    signature: inspect.Signature, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise ConfigurationError if arguments are missing, given twice, or too many."""
    try:
        signature.bind(*args, **kwargs)
        return
    except TypeError as error:
        reason = str(error)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    listed = str(
        signature.replace(
            parameters=[p.replace(annotation=p.empty) for p in parameters], return_annotation=signature.empty
        )
    )
    required = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if "missing" in reason:
        given = signature.bind_partial(*args, **kwargs).arguments
        name = next(name for name in required if name not in given)
        raise ConfigurationError(
            f"Expected the argument {name!r} of {what}, got none. Pass {name}=...; its arguments "
            f"are {listed}."
        )
    raise ConfigurationError(
        f"Expected other arguments of {what}: {reason}. Its arguments are {listed}; pass them by name."
    )


def _listed(parameter: inspect.Parameter) -> list[str]:
    """Names admitted by `**options: Unpack[SomeTypedDict]`; none for any other annotation."""
    (options,) = getattr(parameter.annotation, "__args__", ()) or (None,)
    return list(getattr(options, "__annotations__", {}))


def positive_int(value: Any, name: str, most: int | None = None) -> int:
    """`value` as an int from 1 to `most`, from any integer type; raises ConfigurationError otherwise."""
    try:
        number = index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise ConfigurationError(f"Expected {name} as a positive integer, got {value!r}.")
    if most is not None and number > most:
        raise ConfigurationError(f"Expected {name} of at most {most}, got {value!r}. More only take longer.")
    return number
