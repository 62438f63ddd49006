"""The source code that a simulator or a study depends on: modules of the user, found by following their
imports."""

import ast
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from inspect import getmodule
from pathlib import Path
from types import ModuleType
from typing import Any

import sbi_models

_OWN = (Path(sbi_models.__file__).parent,)
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def sources_of(things: Iterable[Any]) -> dict[str, Path]:
    """Files of the modules that define functions or classes, and of the user's modules that these import,
    directly or not, by name.

    Installed packages are not looked into, nor is this one.
    """
    found: dict[str, Path] = {}
    modules = [thing if isinstance(thing, ModuleType) else getmodule(thing) for thing in things]
    waiting = [
        (module.__name__, Path(module.__file__))
        for module in modules
        if module is not None and module.__file__
    ]
    while waiting:
        name, file = waiting.pop()
        if name in found or file.suffix != ".py" or not file.is_file():
            continue
        found[name] = file
        if _is_users(file):
            is_package = file.name == "__init__.py"
            package = name if is_package else name.rpartition(".")[0]
            for other in dict.fromkeys(
                other for given in _read(file)[1] for other in _with_parents(*given, package)
            ):
                origin = _file_of(other)
                if origin is not None and _is_users(origin):
                    waiting.append((other, origin))
    return dict(sorted(found.items()))


def meaning(file: Path) -> str:
    """What a source file says now, without comments and layout."""
    return _read(file)[0]


def _read(file: Path) -> tuple[str, tuple[tuple[str, int], ...]]:
    """What a source file says, and the modules that it imports: name, and level above it."""
    state = file.stat()
    return _parsed(file, state.st_mtime_ns, state.st_size)


@cache
def _parsed(file: Path, changed: int, size: int) -> tuple[str, tuple[tuple[str, int], ...]]:
    del changed, size
    tree = ast.parse(file.read_bytes())
    return ast.dump(tree), tuple(dict.fromkeys(_imported(tree)))


def _is_users(file: Path) -> bool:
    file = file.resolve()
    installed = (
        "site-packages" in file.parts
        or "dist-packages" in file.parts
        or any(map(file.is_relative_to, _INSTALLED))
    )
    return not installed and not any(map(file.is_relative_to, _OWN))


def _imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Modules that code imports, anywhere in it; some that it may mean are no modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base, node.level
            yield from ((f"{base}.{alias.name}".lstrip("."), node.level) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (
                (str(argument.value), 0) for argument in node.args[:1] if isinstance(argument, ast.Constant)
            )


def _with_parents(name: str, level: int, package: str) -> list[str]:
    """Absolute names of a module and of the packages that it is in."""
    if level:
        above = package.split(".")[: max(0, len(package.split(".")) - level + 1)]
        name = ".".join([*above, *([name] if name else [])])
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts) + 1) if all(parts[:k])]


def _file_of(name: str) -> Path | None:
    """The source file of a module, imported or not."""
    module = sys.modules.get(name)
    if module is not None:
        return None if getattr(module, "__file__", None) is None else Path(str(module.__file__))
    parent = name.rpartition(".")[0]
    if parent:
        above = _file_of(parent)
        if above is None or above.name != "__init__.py" or not _is_users(above):
            return None
        last = name.rpartition(".")[2]
        files = (above.parent / f"{last}.py", above.parent / last / "__init__.py")
        return next((file for file in files if file.is_file()), None)
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None or not spec.has_location else Path(spec.origin)
