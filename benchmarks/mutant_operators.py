"""Operators of mutation: what one node of the syntax tree is replaced by, so that the answer is wrong."""

import ast
import re
from collections.abc import Iterator

SILENT = {"warn", "print", "debug", "info", "warning", "join", "isinstance", "TypeVar", "Literal", "cast"}
"""Calls whose arguments are texts or types."""

COMPARISONS = {
    ast.Lt: ("<", {"boundary": "<=", "negation": ">="}),
    ast.LtE: ("<=", {"boundary": "<", "negation": ">"}),
    ast.Gt: (">", {"boundary": ">=", "negation": "<="}),
    ast.GtE: (">=", {"boundary": ">", "negation": "<"}),
    ast.Eq: ("==", {"negation": "!="}),
    ast.NotEq: ("!=", {"negation": "=="}),
    ast.Is: ("is", {"negation": "is not"}),
    ast.IsNot: ("is not", {"negation": "is"}),
    ast.In: ("in", {"negation": "not in"}),
    ast.NotIn: ("not in", {"negation": "in"}),
}

ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.Pow: ("**", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}

PAIRS = [
    *[("mean", "sum"), ("min", "max"), ("amin", "amax"), ("minimum", "maximum"), ("argmin", "argmax")],
    *[("std", "var"), ("any", "all"), ("floor", "ceil"), ("zeros", "ones"), ("zeros_like", "ones_like")],
    *[("exp", "expm1"), ("log", "log1p"), ("sin", "cos"), ("sinh", "cosh"), ("tril", "triu")],
    *[("sf", "cdf"), ("logsf", "logcdf"), ("isf", "ppf"), ("bdtr", "bdtrc"), ("left", "right")],
    *[("union", "intersection"), ("bitwise_and", "bitwise_or"), ("nanmean", "nansum")],
]
SWAPS = {name: other for pair in PAIRS for name, other in (pair, pair[::-1])} | {
    "median": "mean",
    "logsumexp": "amax",
    "logaddexp": "maximum",
    "softplus": "relu",
    "softmax": "log_softmax",
    "log_softmax": "softmax",
    "expm1": "exp",
    "sigmoid": "tanh",
    "tanh": "sigmoid",
    "round": "floor",
    "arcsinh": "sinh",
    "asinh": "sinh",
}
"""Functions, and others of the same shape that give a silently wrong answer."""

UNWRAPPED = {
    *("abs", "sqrt", "square", "clip", "clamp", "cumsum", "flip", "nan_to_num", "sigmoid", "tanh", "log"),
    *("exp", "sorted", "sort", "softplus", "reversed", "round", "ceil", "floor", "log1p", "expm1", "cumprod"),
    *(
        "logit",
        "expit",
        "abs_",
        "clamp_",
        "unique",
        "masked_fill",
        "lower",
        "casefold",
        "resolve",
        "transpose",
    ),
}
"""Functions f of which f(x) and x.f() are replaced by x."""

REMOVABLE = {
    *(
        "axis",
        "dim",
        "keepdim",
        "keepdims",
        "ddof",
        "correction",
        "unbiased",
        "dtype",
        "descending",
        "reverse",
    ),
    *(
        "key",
        "side",
        "method",
        "right",
        "min",
        "max",
        "minlength",
        "replace",
        "endpoint",
        "weights",
        "default",
    ),
    *("sort_keys", "initial", "start", "seed", "generator", "mask", "prepend", "posinf", "neginf", "stable"),
    *("where", "b", "base", "alternative", "loc", "scale", "maxsplit", "count", "flags", "p", "size"),
}
"""Arguments that the functions called most have a default for."""

AXES = {"axis", "dim"}
REDUCTIONS = {
    "mean",
    "sum",
    "std",
    "var",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "cumsum",
    "logsumexp",
    "softmax",
}

Edit = tuple[str, int, int, str]
"""Operator, first byte, byte after the last, replacement."""


class Source:
    """Bytes of a file, addressed by nodes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.starts = [0]
        for line in content.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def start(self, node: ast.AST) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.AST) -> int:
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        return self.content[self.start(node) : self.end(node)].decode()

    def between(self, left: ast.AST, right: ast.AST, old: str, new: str) -> tuple[int, int, str] | None:
        """The edit of an operator between two nodes; None if it is not found."""
        gap = self.content[self.end(left) : self.start(right)].decode()
        pattern = rf"(?<!\w){re.escape(old)}(?!\w)" if old[0].isalpha() else re.escape(old)
        if found := re.search(pattern.replace(r"\ ", r"\s+"), gap):
            return self.end(left) + found.start(), self.end(left) + found.end(), new
        return None

    def line_texts(self, start: int, end: int, text: str) -> tuple[str, str]:
        """Whole lines around an edit, before and after it, on one line each."""
        first = self.content.rfind(b"\n", 0, start) + 1
        last = self.content.find(b"\n", end) % (len(self.content) + 1)
        before, old, after = self.content[first:start], self.content[start:end], self.content[end:last]
        return tuple(
            " ".join(f"{before.decode()}{part}{after.decode()}".split()) for part in (old.decode(), text)
        )


def called(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", "") or getattr(function, "id", "")


def edits(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Edits of one node: kind, start, end, replacement."""
    for rule in RULES.get(type(node), ()):
        yield from rule(node, source)


def _compare(node: ast.Compare, source: Source) -> Iterator[Edit]:
    left = node.left
    for operator, right in zip(node.ops, node.comparators, strict=True):
        old, changes = COMPARISONS[type(operator)]
        for kind, new in changes.items():
            if edit := source.between(left, right, old, new):
                yield kind, *edit
        left = right


def _arithmetic(node: ast.BinOp, source: Source) -> Iterator[Edit]:
    if type(node.op) in ARITHMETIC and not any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and not isinstance(side.value, int | float))
        for side in (node.left, node.right)
    ):
        old, new = ARITHMETIC[type(node.op)]
        if edit := source.between(node.left, node.right, old, new):
            yield "arithmetic", *edit


def _unary(node: ast.UnaryOp, source: Source) -> Iterator[Edit]:
    """Without the sign, or the negation; the sign of an integer is mostly that of an axis or a place."""
    integer = isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int)
    if isinstance(node.op, ast.Not | ast.Invert) or (isinstance(node.op, ast.USub) and not integer):
        kind = "sign" if isinstance(node.op, ast.USub) else "not"
        yield kind, source.start(node), source.start(node.operand), ""


def _boolean(node: ast.BoolOp, source: Source) -> Iterator[Edit]:
    old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for left, right in zip(node.values, node.values[1:], strict=False):
        if edit := source.between(left, right, old, new):
            yield "boolean", *edit


def constants(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Other numbers in the place of a number, the other truth value, the other side."""
    if not isinstance(node, ast.Constant):
        return
    value, start, end = node.value, source.start(node), source.end(node)
    if isinstance(value, bool):
        yield "constant", start, end, str(not value)
    elif isinstance(value, int):
        for other in {0: (1,), 1: (0, 2)}.get(value, (value + 1, value * 2)):
            yield "constant", start, end, str(other)
    elif isinstance(value, float):
        for other in (value * 2, value / 3) if value else (1.0,):
            yield "constant", start, end, repr(other)
    elif isinstance(value, str) and value in {"left", "right", "above", "below", "low", "high"}:
        pairs = {"left": "right", "above": "below", "low": "high"}
        yield "swap", start, end, repr((pairs | {b: a for a, b in pairs.items()})[value])


def _call(node: ast.Call, source: Source) -> Iterator[Edit]:
    name, function = called(node), node.func
    start, end = source.start(node), source.end(node)
    if name in SWAPS:
        yield "swap", source.end(function) - len(name), source.end(function), SWAPS[name]
    if name in UNWRAPPED:
        method = isinstance(function, ast.Attribute) and not _is_module(function.value)
        inner = function.value if method else node.args[0] if node.args else None
        if inner is not None and not isinstance(inner, ast.Starred | ast.GeneratorExp):
            yield "unwrap", start, end, f"({source.text(inner)})"
    yield from _axes(node, name, source)
    for keyword in node.keywords:
        if keyword.arg in REMOVABLE:
            yield "keyword", *_without(keyword, source)


def _is_module(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in {"np", "torch", "math", "functional", "stats", "F"}


def _axes(node: ast.Call, name: str, source: Source) -> Iterator[Edit]:
    """The first axis in the place of the last, and the other way round."""
    values = [keyword.value for keyword in node.keywords if keyword.arg in AXES]
    values += node.args[:1] if name in REDUCTIONS and isinstance(node.func, ast.Attribute) else []
    for value in values:
        if other := {"0": "-1", "1": "0", "-1": "0", "-2": "-1"}.get(source.text(value)):
            yield "axis", source.start(value), source.end(value), other


def _without(node: ast.AST, source: Source) -> tuple[int, int, str]:
    """The edit that removes an element with the comma after or before it."""
    start, end = source.start(node), source.end(node)
    if after := re.match(rb"\s*,\s*", source.content[end:]):
        return start, end + after.end(), ""
    before = re.search(rb",\s*$", source.content[:start])
    return (before.start() if before else start), end, ""


def _attribute(node: ast.Attribute, source: Source) -> Iterator[Edit]:
    if node.attr in {"T", "mT"}:
        yield "unwrap", source.end(node.value), source.end(node), ""


def _subscript(node: ast.Subscript, source: Source) -> Iterator[Edit]:
    if source.text(node.slice) == "::-1":
        yield "unwrap", source.end(node.value), source.end(node), ""


def _slice(node: ast.Slice, source: Source) -> Iterator[Edit]:
    for bound in (node.lower, node.upper):
        if bound is not None and not isinstance(bound, ast.Constant):
            yield "slice", source.end(bound), source.end(bound), " + 1"
            yield "slice", source.end(bound), source.end(bound), " - 1"


def _condition(node: ast.If | ast.IfExp, source: Source) -> Iterator[Edit]:
    for value in ("True", "False"):
        yield "condition", source.start(node.test), source.end(node.test), value


def _filter(node: ast.comprehension, source: Source) -> Iterator[Edit]:
    for condition in node.ifs:
        yield "condition", source.start(condition), source.end(condition), "True"


def _return(node: ast.Return, source: Source) -> Iterator[Edit]:
    if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield "return", source.start(node.value), source.end(node.value), "None"


def _statement(node: ast.stmt, source: Source) -> Iterator[Edit]:
    """Removal of a statement with an effect."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    stored = targets and all(isinstance(target, ast.Attribute | ast.Subscript) for target in targets)
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if (
        isinstance(node, ast.AugAssign)
        or stored
        or (call and called(node.value) not in SILENT | {"__init__"})
    ):
        yield "statement", source.start(node), source.end(node), "pass"


def removed_parts(node: ast.AST, source: Source) -> Iterator[Edit]:
    """Lists, calls of hashes and texts to be hashed, each without one of their elements."""
    if isinstance(node, ast.List) and len(node.elts) > 1:
        for element in node.elts:
            yield "part", *_without(element, source)
    elif isinstance(node, ast.Call) and re.search("key|parts|hash", called(node)) and len(node.args) > 1:
        for argument in node.args[1:]:
            yield "part", *_without(argument, source)
    elif isinstance(node, ast.Attribute) and node.attr == "encode" and isinstance(node.value, ast.JoinedStr):
        start = source.start(node.value)
        for value in re.finditer(r"\{[^{}]+\}", source.text(node.value)):
            yield "part", start + value.start(), start + value.end(), ""


RULES = {
    ast.Compare: (_compare,),
    ast.BinOp: (_arithmetic,),
    ast.UnaryOp: (_unary,),
    ast.BoolOp: (_boolean,),
    ast.Constant: (constants,),
    ast.Call: (_call,),
    ast.Attribute: (_attribute,),
    ast.Subscript: (_subscript,),
    ast.Slice: (_slice,),
    ast.If: (_condition,),
    ast.IfExp: (_condition,),
    ast.comprehension: (_filter,),
    ast.Return: (_return,),
    ast.Assign: (_statement,),
    ast.AugAssign: (_statement,),
    ast.Expr: (_statement,),
}
