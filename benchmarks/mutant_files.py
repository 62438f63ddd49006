"""Mutants of one source file: edits of its syntax tree, with their place and the statement they are in.

Texts for readers are left alone: docstrings, messages, annotations, `raise` and `assert` statements.
"""

import ast
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from mutant_operators import SILENT, Edit, Source, called, constants, edits, removed_parts

READ_ONLY = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Global)
"""Nodes that are never edited, nor anything within them."""

SHOWN = {"__repr__", "__str__", "__rich__", "_repr_html_"}
"""Functions that write what a person reads."""


@dataclass(frozen=True)
class Mutant:
    """An edit of a source file.

    Attributes:
        file: the file, relative to the project.
        function: qualified name of the class or function that the edit is in; "" at the top.
        kind: operator that made it.
        line: line of the edit, from 1.
        original: source lines of the edit, on one line.
        mutated: the same after the edit.
        executed: first and last line of the statement; a test that executes none of them cannot see the edit.
        start: place of the edit in the bytes of the file.
        end: where the replaced bytes end.
        text: replacement.
    """

    file: str
    function: str
    kind: str
    line: int
    original: str
    mutated: str
    executed: tuple[int, int]
    start: int
    end: int
    text: str

    @property
    def name(self) -> tuple[str, str, str, str]:
        """What it is recognized by when lines have moved."""
        return self.file, self.function, self.original, self.mutated

    def apply(self, source: bytes) -> bytes:
        """Source of the mutated file."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def compiles(self, source: bytes) -> bool:
        """Whether the mutated file is one of Python, with another meaning."""
        try:
            return ast.dump(ast.parse(self.apply(source))) != ast.dump(ast.parse(source))
        except SyntaxError:
            return False


def mutants_of(file: str, content: bytes, *, parts: bool = False) -> list[Mutant]:
    """Mutants of a file, some of which may not compile.

    Args:
        file: the file, relative to the project.
        content: its bytes.
        parts: whether elements of what is listed and hashed are left out, too.
    """
    source = Source(content)
    mutants: dict[tuple[str, ...], Mutant] = {}
    for place, found in _walk(ast.parse(content), _Place("", (1, 1)), source, parts):
        for kind, start, end, text in found:
            before, after = source.line_texts(start, end, text)
            line = bisect(source.starts, start)
            mutant = Mutant(file, place.function, kind, line, before, after, place.lines, start, end, text)
            mutants[mutant.name] = mutant
    return list(mutants.values())


@dataclass(frozen=True)
class _Place:
    function: str
    lines: tuple[int, int]

    def inside(self, name: str) -> str:
        return f"{self.function}.{name}" if self.function else name


Edits = list[Edit]


def _walk(node: ast.AST, place: _Place, source: Source, parts: bool) -> Iterator[tuple[_Place, Edits]]:
    """Places of a file with the edits that are made there."""
    if isinstance(node, READ_ONLY) or _is_shown(node):
        return
    if isinstance(node, ast.stmt):
        place = _Place(place.function, _lines(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield from _walk_definition(node, place, source, parts)
        return
    yield place, list(edits(node, source)) + (list(removed_parts(node, source)) if parts else [])
    for field, child in _children(node):
        if field not in {"annotation", "returns", "decorator_list", "type_params"}:
            yield from _walk(child, place, source, parts)


def _walk_definition(
    node: ast.AST, place: _Place, source: Source, parts: bool
) -> Iterator[tuple[_Place, Edits]]:
    """The body of a function or class, and the defaults of a function's arguments."""
    inner = _Place(place.inside(node.name), place.lines)
    if not isinstance(node, ast.ClassDef):
        body = _Place(inner.function, (node.body[0].lineno, node.end_lineno))
        for default in [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]:
            yield body, [("default", *edit) for _, *edit in constants(default, source)]
    for statement in node.body:
        yield from _walk(statement, inner, source, parts)


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield field, child


def _lines(node: ast.stmt) -> tuple[int, int]:
    """Lines of a statement, without those of its body."""
    body = getattr(node, "body", None)
    return node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno


def _is_shown(node: ast.AST) -> bool:
    """Whether a node only makes text for readers, or names."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if isinstance(node, ast.FunctionDef):
        return node.name in SHOWN
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.Call) and (called(node) in SILENT or called(node).endswith("Error"))
