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
        functions: functions from which the search starts.
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
    generators: dict[int, Any] = {}
    seen: dict[int, Any] = {}  # keeps what is looked at, so that no two things have one id
    pending = deque(functions)
    while pending and len(seen) < _MOST_OBJECTS:
        item = pending.popleft()
        if isinstance(item, _PLAIN) or id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, kinds):
            source = getattr(item, "bit_generator", None) or getattr(item, "_bit_generator", None) or item
            generators.setdefault(id(source), item)
        elif isinstance(item, tensor):
            continue
        else:
            if (
                modules is not None
                and isinstance(item, FunctionType | type)
                and not _is_library(item.__module__)
            ):
                modules.add(str(item.__module__))
            if (getattr(item, "__module__", None) or "").partition(".")[0] == "torch":
                pending.append(torch_generator)  # such as a distribution, whose draws come from there
            pending.extend(_inside(item))
    return list(generators.values())


def _inside(item: Any) -> Iterator[Any]:  # noqa: PLR0911 - one kind after the other
    """Objects that an object refers to directly."""
    if isinstance(item, FunctionType):
        return _of_function(item)
    if isinstance(item, MethodType):
        return iter((item.__self__, item.__func__))
    if isinstance(item, BuiltinFunctionType):
        owner = item.__self__
        return iter(() if isinstance(owner, ModuleType) else (owner,))
    if isinstance(item, partial):
        return iter((item.func, item.args, item.keywords))
    if isinstance(item, staticmethod | classmethod):
        return iter((item.__func__,))
    if isinstance(item, property):
        return iter((item.fget,))
    if isinstance(item, cached_property):
        return iter((item.func,))
    if isinstance(item, Mapping):
        return iter(list(item.values())[:_MOST_ITEMS])
    if isinstance(item, list | tuple | deque):
        return iter(list(item)[:_MOST_ITEMS])
    if isinstance(item, np.ndarray):
        return iter(list(item.flat)[:_MOST_ITEMS] if item.dtype == object else ())
    if isinstance(item, GeneratorType):
        return iter(() if item.gi_frame is None else item.gi_frame.f_locals.values())
    if isinstance(item, type):
        return _of_class(item)
    return iter(()) if isinstance(item, ModuleType | CodeType) else _of_object(item)


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
    attributes = vars(module)
    if module.__name__.partition(".")[0] == "torch":
        yield attributes.get("default_generator")
    for name in names:
        value = attributes.get(name)
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


def _of_object(item: Any) -> Iterator[Any]:
    yield type(item)
    yield getattr(item, "__wrapped__", None) or getattr(
        item, "py_func", None
    )  # caches and compiled functions
    yield from getattr(item, "__dict__", {}).values()
    for base in type(item).__mro__:
        slots = vars(base).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            yield getattr(item, slot, None)


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES
