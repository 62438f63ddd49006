"""Adapter of an experiment, built from the steps in its settings."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sbi_models.adapters import Adapter, Transform
from sbi_models.adapters.transforms.registry import KINDS
from sbi_models.errors import ConfigurationError, SbiModelsError, suggest

_NO_STEPS = ("then", "route", "fitted")
"""Methods that return an adapter, and are not for settings."""

_NOT_IN_YAML = {"prior": "Give the simulator torch distributions: their supports are taken by themselves."}
"""Arguments that YAML cannot hold, and what to do in their place."""

Step = Mapping[str, Any]


def adapter_of(steps: Sequence[Step]) -> Adapter | None:
    """The adapter of some steps, each a mapping of one name to its arguments; None without steps.

    A name is that of a method of `Adapter`, or of a registered transform, also of your own. Its arguments are
    the variables alone, or a mapping of all of them.

    Raises:
        ConfigurationError: for an unknown name, or unknown, missing or impossible arguments; the message has
            the number of the step.

    >>> adapter_of([{"log": ["sigma"]}, {"constrain": {"names": "p", "lower": 0, "upper": 1}}])
    Adapter(log, constrain)
    """
    adapter = Adapter()
    for number, step in enumerate(steps, start=1):
        ((name, given),) = step.items()
        adapter = _followed_by(adapter, name, given, f"adapter, step {number} ({name})")
    return adapter if steps else None


def step_names() -> list[str]:
    """Names that a step may have: methods of `Adapter`, and registered transforms."""
    return sorted({*_methods(), *KINDS})


def own_classes(adapter: Adapter | None) -> list[type[Transform]]:
    """Classes of the steps of an adapter that are none of this package."""
    steps = () if adapter is None else adapter.transforms
    return [type(step) for step in steps if not type(step).__module__.startswith("sbi_models.")]


def _followed_by(adapter: Adapter, name: str, given: Any, where: str) -> Adapter:
    """The adapter with one more step; `where` is the step, for messages."""
    if name in _methods():
        make: Callable[..., Any] = partial(getattr(Adapter, name), adapter)
        known = list(inspect.signature(getattr(Adapter, name)).parameters.values())[1:]
    elif name in KINDS:
        make, known = KINDS[name], list(inspect.signature(KINDS[name]).parameters.values())
    else:
        raise ConfigurationError(
            f"{where}: expected a method of Adapter or a registered transform, got {name!r}. "
            f"{suggest(name, step_names())} Register your own in the module of the simulator, with "
            f"@register_transform({name!r})."
        )
    arguments = _arguments(given, known, where)
    try:
        made = make(**arguments)
        return made if isinstance(made, Adapter) else adapter.then(made)
    except (SbiModelsError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}{_numbers_as_text(arguments)}") from None


def _methods() -> list[str]:
    """Names of the methods of `Adapter` that add a step."""
    return [
        name
        for name, method in vars(Adapter).items()
        if inspect.isfunction(method)
        and not name.startswith("_")
        and name not in _NO_STEPS
        and inspect.signature(method).return_annotation in ("Adapter", Adapter)
    ]


def _arguments(given: Any, known: list[inspect.Parameter], where: str) -> dict[str, Any]:
    """Arguments of a step by name, checked for their names."""
    names = [parameter.name for parameter in known if parameter.name not in _NOT_IN_YAML]
    arguments = dict(given) if isinstance(given, Mapping) else {names[0]: given}
    for name in arguments:
        if name in _NOT_IN_YAML:
            raise ConfigurationError(
                f"{where}: expected no {name} in settings, got one. {_NOT_IN_YAML[name]}"
            )
        if name not in names:
            raise ConfigurationError(
                f"{where}: expected its arguments, got {name!r}. {suggest(str(name), names)}"
            )
    for parameter in known:
        if parameter.default is parameter.empty and arguments.get(parameter.name) is None:
            raise ConfigurationError(
                f"{where}: expected the argument {parameter.name!r}, got "
                f"{', '.join(map(str, arguments)) if isinstance(given, Mapping) else repr(given)}. Write "
                f"{_pattern(known)}."
            )
    return arguments


def _pattern(known: list[inspect.Parameter]) -> str:
    """The arguments that a step needs, as YAML."""
    needed = [parameter.name for parameter in known if parameter.default is parameter.empty]
    return "{" + ", ".join(f"{name}: ..." for name in needed) + "}"


def _numbers_as_text(arguments: Mapping[str, Any]) -> str:
    """A cure for numbers such as 1e-3, which YAML 1.1 reads as text; empty if there are none."""
    for value in arguments.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and "e" in item.lower() and _is_number(item):
                return f" YAML takes {item} for text: write it with a point and a sign, such as 1.0e-3."
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
