"""Import closure of source code: the modules that code imports, directly or not, found by syntax trees.

Code of a user is followed through the user's modules, and code of this package through those of the package;
installed packages count by their versions. Nothing is imported to find out. What was read of a file is kept
for as long as it has the same size and time of change, also for later processes.
"""

import ast
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from inspect import getmodule
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from platformdirs import user_cache_path

import sbi_models

_ROOT = Path(sbi_models.__file__).resolve().parent
_NAME = _ROOT.name
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_FORMAT = 1
"""Version of what is kept of a file."""


class Source(NamedTuple):
    """What a source file says.

    Attributes:
        meaning: sha256 of its syntax tree, without docstrings; comments and layout are not in the tree.
        imports: names that it imports, module or `module.attribute`, each with the number of leading dots.
        homes: submodules by name, of a package that imports its names when they are first used.
    """

    meaning: str
    imports: tuple[tuple[str, int], ...]
    homes: dict[str, str]


def sources_of(things: Iterable[Any]) -> dict[str, Path]:
    """Files of the modules that define functions or classes, and of all modules that these import, by name.

    Args:
        things: functions, classes or modules. Those of a user are followed through modules of the user, those
            of this package through its modules.
    """
    modules = [thing if isinstance(thing, ModuleType) else getmodule(thing) for thing in things]
    files: dict[str, Path] = {}
    for module in dict.fromkeys(modules):
        if module is None or not module.__file__:
            continue
        name, file = module.__name__, Path(module.__file__)
        if file.resolve().is_relative_to(_ROOT):
            files |= package_sources(name)
        elif file.suffix == ".py" and file.is_file():
            files |= _closure([(name, file)], _users_files, _is_users)
    return dict(sorted(files.items()))


def package_sources(module: str) -> dict[str, Path]:
    """Files of a module of this package, and of all of its modules that this one imports, by name.

    Importing `a.b.c` runs `a` and `a.b`, so these are followed, too. Names that a package imports when they
    are first used lead to their submodule alone.

    >>> sorted(package_sources("sbi_models.errors"))
    ['sbi_models', 'sbi_models.errors']
    """
    start = [(name, file) for part in _parents(module) for name, file in _package_files(part)]
    return _closure(start, _package_files, lambda file: True)


def meaning(file: Path) -> str:
    """sha256 of what a source file says, without comments, docstrings and layout."""
    return read_source(file).meaning


def read_source(file: Path) -> Source:
    """What a source file says now."""
    state = file.stat()
    return _read(file, state.st_mtime_ns, state.st_size)


def _closure(
    start: Iterable[tuple[str, Path]],
    find: Callable[[str], list[tuple[str, Path]]],
    follow: Callable[[Path], bool],
) -> dict[str, Path]:
    """Files that are reached from some, by name.

    `find` gives the files of an imported name, and `follow` says which are read.
    """
    files: dict[str, Path] = {}
    tried: set[str] = set()
    waiting = list(start)
    while waiting:
        name, file = waiting.pop()
        if name in files:
            continue
        files[name] = file
        if follow(file):
            package = name if file.name == "__init__.py" else name.rpartition(".")[0]
            names = (_absolute(*imported, package) for imported in read_source(file).imports)
            parts = [part for imported in names for part in _parents(imported) if part not in tried]
            tried.update(parts)
            waiting += [source for part in dict.fromkeys(parts) for source in find(part)]
    _save_kept()
    return dict(sorted(files.items()))


def _absolute(name: str, level: int, package: str) -> str:
    """Absolute name of a module that a module of a package imports."""
    if not level:
        return name
    above = package.split(".")[: max(0, len(package.split(".")) - level + 1)]
    return ".".join([*above, *([name] if name else [])])


@cache
def _parents(name: str) -> list[str]:
    """Name of a module, after those of the packages that it is in."""
    parts = name.split(".")
    return [".".join(parts[:k]) for k in range(1, len(parts) + 1) if all(parts[:k])]


# ---- one file ----------------------------------------------------------------


@cache
def _read(file: Path, changed: int, size: int) -> Source:
    key = f"{file} {changed} {size}"
    if (record := _kept().get(key)) is not None:
        return Source(record[0], tuple((name, level) for name, level in record[1]), record[2])
    text = file.read_bytes()
    tree = ast.parse(text)
    imports = tuple(dict.fromkeys(_imported(tree, text)))
    homes = _homes(tree)
    _without_docstrings(tree)
    source = Source(hashlib.sha256(ast.dump(tree).encode(errors="surrogatepass")).hexdigest(), imports, homes)
    _kept()[key] = [source.meaning, source.imports, source.homes]
    _unsaved.append(key)
    return source


def _imported(tree: ast.Module, text: bytes) -> Iterator[tuple[str, int]]:
    """Names that code imports, anywhere in it; imports for type checkers alone are never run."""
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield base, node.level
            yield from ((f"{base}.{alias.name}".lstrip("."), node.level) for alias in node.names)
    if b"import_module" in text or b"__import__" in text:
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if _name_of(call.func) in ("import_module", "__import__"):
                names = [node.value for node in call.args[:1] if isinstance(node, ast.Constant)]
                yield from ((name, 0) for name in names if isinstance(name, str))


def _statements(block: ast.AST) -> Iterator[ast.stmt]:
    """All statements of a block, nested ones too, but for those that only type checkers read."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        if field == "body" and isinstance(block, ast.If) and _name_of(block.test) == "TYPE_CHECKING":
            continue
        inner = getattr(block, field, None)
        for node in inner if isinstance(inner, list) else ():
            if isinstance(node, ast.stmt):
                yield node
            yield from _statements(node)


def _name_of(node: ast.expr) -> str:
    return str(getattr(node, "attr", getattr(node, "id", "")))


def _homes(tree: ast.Module) -> dict[str, str]:
    """The table `_HOMES` of a package, from names to the submodules that define them."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [_name_of(target) for target in node.targets] == ["_HOMES"]:
            return dict(ast.literal_eval(node.value))
    return {}


def _without_docstrings(tree: ast.Module) -> None:
    """Remove docstrings, and other statements that are no more than a text."""
    for node in [tree, *_statements(tree)]:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


# ---- files by the name of a module -------------------------------------------


def _package_files(name: str) -> list[tuple[str, Path]]:
    """Name and file of a module of this package, or of the submodule that defines a name of it."""
    return _files_below(_ROOT, name)


@cache
def _files_below(root: Path, name: str) -> list[tuple[str, Path]]:
    first, *parts = name.split(".")
    if first != _NAME:
        return []
    path = root.joinpath(*parts)
    for file in (path.with_suffix(".py") if parts else path / "__init__.py", path / "__init__.py"):
        if file.is_file():
            return [(name, file)]
    package, _, attribute = name.rpartition(".")
    init = root.joinpath(*package.split(".")[1:], "__init__.py")
    home = read_source(init).homes.get(attribute) if package and init.is_file() else None
    if home is None:
        return []
    names = [*_parents(f"{package}.{home}"), f"{package}.{home}.{attribute}"]
    return [source for name in names for source in _files_below(root, name)]


def _users_files(name: str) -> list[tuple[str, Path]]:
    file = _file_of(name)
    return [(name, file)] if file is not None and file.suffix == ".py" and _is_users(file) else []


def _is_users(file: Path) -> bool:
    file = file.resolve()
    installed = (
        "site-packages" in file.parts
        or "dist-packages" in file.parts
        or any(map(file.is_relative_to, _INSTALLED))
    )
    return not installed and not file.is_relative_to(_ROOT) and file.is_file()


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


# ---- what is kept for later processes ----------------------------------------

_unsaved: list[str] = []


def _kept_file() -> Path:
    return (
        user_cache_path("sbi_models") / f"sources-{_FORMAT}-{sys.version_info[0]}.{sys.version_info[1]}.json"
    )


@cache
def _kept() -> dict[str, Any]:
    """What earlier processes have read, by path, time of change and size; empty if that cannot be read."""
    try:
        return dict(json.loads(_kept_file().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _save_kept() -> None:
    """Keep what this process has read of the package for later ones; failing to is no error.

    Records of files that are gone, as those of a checkout that was removed, are left out.
    """
    new = {key: _kept()[key] for key in _unsaved if key.startswith(str(_ROOT))}
    _unsaved.clear()
    if not new:
        return
    with suppress(OSError, ValueError):
        file = _kept_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        paths = {key.rsplit(" ", 2)[0] for key in new}
        paths |= {path for path in {key.rsplit(" ", 2)[0] for key in _kept()} if not os.path.exists(path)}
        old = {key: record for key, record in _kept().items() if key.rsplit(" ", 2)[0] not in paths}
        part = file.with_name(f"{file.name}.{os.getpid()}")
        part.write_text(json.dumps(old | new), encoding="utf-8")
        part.replace(file)
