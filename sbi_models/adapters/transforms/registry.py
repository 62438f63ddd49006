"""Adapter transforms by kind: the only classes that the adapter of a model file may name."""

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any, TypedDict, TypeVar

from sbi_models.adapters.transforms.base import Transform
from sbi_models.errors import ConfigurationError, ModelFileError, SbiModelsError, suggest
from sbi_models.registry import Registry
from sbi_models.safe_construction import check_arguments, misfit

T = TypeVar("T", bound=type[Transform])

KINDS: Registry[type[Transform]] = Registry("transform", attribute="kind")
"""Class of each adapter transform by its kind."""


class TransformEntry(TypedDict):
    """A transform as `Adapter.to_json()` describes it."""

    kind: str
    config: dict[str, Any]


def register_transform(kind: str) -> Callable[[T], T]:
    """Class decorator that registers a subclass of `Transform` under a kind, so that files can name it.

    Whoever loads such a file imports the module with the class first. See `Transform` for an example.

    Raises:
        ConfigurationError: if it is no subclass of `Transform`, or another class has the kind.
    """

    def add(cls: T) -> T:
        if not (isinstance(cls, type) and issubclass(cls, Transform)):
            raise ConfigurationError(
                f"Expected a subclass of Transform to register as {kind!r}, got {cls!r}."
            )
        return KINDS.register(kind)(cls)

    return add


def transform_to_json(transform: Transform) -> dict[str, Any]:
    """Kind and configuration of a transform, `{"kind": ..., "config": {...}}`.

    Raises:
        ConfigurationError: if its class is not registered, so that no file can name it, or if `config` leaves
            out an argument that is not as by default, so that a file would hold another transform.
    """
    cls = type(transform)
    kind = vars(cls).get("kind")
    if not (isinstance(kind, str) and KINDS.holds(kind, cls)):
        raise ConfigurationError(
            f"Expected registered transforms in the adapter, got {cls.__name__}, which no file can name. Put "
            "@register_transform('name') above the class, from sbi_models.adapters."
        )
    config = transform.config()
    if lost := [name for name in _not_default(transform) if name not in config]:
        raise ConfigurationError(
            f"Expected config() of {cls.__name__} to have all arguments of its constructor, got {config!r} "
            f"without {', '.join(map(repr, lost))}. Add them: a file would hold a transform with the default."
        )
    return {"kind": kind, "config": config}


def _not_default(transform: Transform) -> Iterator[str]:
    """Arguments of the constructor whose attribute of the same name is not their default."""
    for name, parameter in inspect.signature(type(transform)).parameters.items():
        default = parameter.default
        value = vars(transform).get(name, default)
        if default is inspect.Parameter.empty or value is default:
            continue
        same = type(value) is type(default) and value == default
        if not (isinstance(same, bool) and same):
            yield name


def check_rebuilds(transform: Transform) -> None:
    """Raise ConfigurationError unless a transform is registered and its `config` rebuilds it.

    Workflows try it before a training: a file that cannot be loaded would be noticed too late.
    """
    entry = transform_to_json(transform)
    try:
        transform_from_json(json.loads(json.dumps(entry)))
    except (SbiModelsError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"Expected config() of {type(transform).__name__} as the arguments of its constructor, of JSON's "
            f"types, got {entry['config']!r}: {error}"
        ) from None


def transform_from_json(entry: dict[str, Any]) -> Transform:
    """The transform that `transform_to_json` described; registered classes alone, from arguments they know.

    Raises:
        ModelFileError: for anything else.
    """
    if message := misfit(entry, TransformEntry, "a transform"):
        raise ModelFileError(message)
    kind, config = entry["kind"], entry["config"]
    if kind not in KINDS:
        raise ModelFileError(
            f"The file names an unknown adapter transform {kind!r}. {suggest(kind, KINDS)} Register your own "
            f"before loading: import the module with @register_transform({kind!r})."
        )
    known = inspect.signature(KINDS[kind]).parameters
    for name in config:
        if name not in known:
            raise ModelFileError(
                f"The file gives the adapter transform {kind!r} an unknown argument {name!r}. "
                f"{suggest(name, known)}"
            )
    check_arguments(KINDS[kind], config, kind, sizes=False)
    return KINDS[kind](**config)
