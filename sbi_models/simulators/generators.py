"""Search for random number generators that functions hold, through everything reachable from them.

    function -> closure, defaults, globals that its code names -> objects, their attributes and methods ->
    containers -> generators

Nothing is called and nothing changed. What is not found, such as a generator inside of compiled code, shows
when a row is drawn twice.
"""

import random
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dis import get_instructions
from functools import cache, cached_property, partial
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np

_MOST_OBJECTS, _MOST_ITEMS = 20_000, 1_000
"""Limits of the search: objects in all, and items of one container."""

_LIBRARIES = {
    *sys.stdlib_module_names,
    "numpy",
    "scipy",
    "torch",
    "pandas",
    "sklearn",
    "matplotlib",
    "lightning",
    "numba",
    "jax",
    "jaxlib",
}
_LIBRARIES |= {"sbi_models", "prefect", "mlflow", "pydantic", "cloudpickle", "joblib"}
"""Packages whose functions are not looked into: what they draw from is handed to them, or a global state."""

_PLAIN = (str, bytes, int, float, complex, bool, type(None), np.generic)


def held_generators(functions: Iterable[Any], modules: set[str] | None = None) -> list[Any]:
    """Generators reachable from functions, each once, in an order that is the same in other processes.

    Global generators are included.

    They are `numpy.random.Generator` and `RandomState`, `random.Random`, and `torch.Generator`.

    Args:
        functions: where to begin.
        modules: gets the names of the modules that define functions and classes on the way, but for those of
            libraries.
    """
    torch = sys.modules.get("torch")
    kinds = (
        np.random.Generator,
        np.random.RandomState,
        np.random.BitGenerator,
        random.Random,
        *([torch.Generator] if torch else []),
    )
    tensor: tuple[type, ...] = (torch.Tensor,) if torch else ()
    torch_generator = torch.default_generator if torch else None
    found: dict[int, Any] = {}
    seen: dict[int, Any] = {}  # keeps what is looked at, so that no two things have one id
    waiting = deque(functions)
    while waiting and len(seen) < _MOST_OBJECTS:
        thing = waiting.popleft()
        if isinstance(thing, _PLAIN) or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, kinds):
            source = getattr(thing, "bit_generator", None) or getattr(thing, "_bit_generator", None) or thing
            found.setdefault(id(source), thing)
        elif isinstance(thing, tensor):
            continue
        else:
            if (
                modules is not None
                and isinstance(thing, FunctionType | type)
                and not _is_library(thing.__module__)
            ):
                modules.add(str(thing.__module__))
            if (getattr(thing, "__module__", None) or "").partition(".")[0] == "torch":
                waiting.append(torch_generator)  # such as a distribution, whose draws come from there
            waiting.extend(_inside(thing))
    return list(found.values())


def _inside(thing: Any) -> Iterator[Any]:  # noqa: PLR0911 - one kind after the other
    """Objects that an object refers to directly."""
    if isinstance(thing, FunctionType):
        return _of_function(thing)
    if isinstance(thing, MethodType):
        return iter((thing.__self__, thing.__func__))
    if isinstance(thing, BuiltinFunctionType):
        owner = thing.__self__
        return iter(() if isinstance(owner, ModuleType) else (owner,))
    if isinstance(thing, partial):
        return iter((thing.func, thing.args, thing.keywords))
    if isinstance(thing, staticmethod | classmethod):
        return iter((thing.__func__,))
    if isinstance(thing, property):
        return iter((thing.fget,))
    if isinstance(thing, cached_property):
        return iter((thing.func,))
    if isinstance(thing, Mapping):
        return iter(list(thing.values())[:_MOST_ITEMS])
    if isinstance(thing, list | tuple | deque):
        return iter(list(thing)[:_MOST_ITEMS])
    if isinstance(thing, np.ndarray):
        return iter(list(thing.flat)[:_MOST_ITEMS] if thing.dtype == object else ())
    if isinstance(thing, GeneratorType):
        return iter(() if thing.gi_frame is None else thing.gi_frame.f_locals.values())
    if isinstance(thing, type):
        return _of_class(thing)
    return iter(()) if isinstance(thing, ModuleType | CodeType) else _of_object(thing)


def _of_function(function: FunctionType) -> Iterator[Any]:
    if _is_library(function.__module__):
        yield getattr(function, "__self__", None)
        return
    yield getattr(function, "__wrapped__", None)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield function.__defaults__
    yield function.__kwdefaults__
    names, imported = _names(function.__code__)
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
            yield from _of_module(value, names) if isinstance(value, ModuleType) else (value,)
    for name in imported:
        for module in (name, f"{function.__globals__.get('__package__')}.{name}"):
            if module in sys.modules:
                yield from _of_module(sys.modules[module], names)


def _of_module(module: ModuleType, names: Iterable[str], depth: int = 3) -> Iterator[Any]:
    """Objects that code with these names may take from a module and its submodules.

    Examples are `tools.rng` and `np.random.normal`.
    """
    own = vars(module)
    if module.__name__.partition(".")[0] == "torch":
        yield own.get("default_generator")
    for name in names:
        value = own.get(name)
        if isinstance(value, ModuleType):
            if depth and value is not module:
                yield from _of_module(value, names, depth - 1)
        elif value is not None:
            yield value


@cache
def _names(code: CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of globals and attributes in a code object, in order, and names of modules that it imports.

    Nested code objects are included.
    """
    names = dict.fromkeys(code.co_names)
    imported = dict.fromkeys(step.argval for step in get_instructions(code) if step.opname == "IMPORT_NAME")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner, from_there = _names(constant)
            names |= dict.fromkeys(inner)
            imported |= dict.fromkeys(from_there)
    return tuple(names), tuple(imported)


def _of_class(kind: type) -> Iterator[Any]:
    for base in kind.__mro__:
        if not _is_library(base.__module__):
            for _, value in sorted(vars(base).items()):
                yield value


def _of_object(thing: Any) -> Iterator[Any]:
    yield type(thing)
    yield getattr(thing, "__wrapped__", None) or getattr(
        thing, "py_func", None
    )  # caches and compiled functions
    yield from getattr(thing, "__dict__", {}).values()
    for base in type(thing).__mro__:
        slots = vars(base).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            yield getattr(thing, slot, None)


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES
