"""Schemas of simulation stores: type and shape of a row of each variable, and those of several shards merged.

An axis along which data sets have different lengths has no number in the shape: [null, d] for N elements of d
numbers, and [null, null, d] for groups of elements.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sbi_models.ragged import as_ragged, axes_of_any_length, is_ragged, joined, leaves, real_or_ragged
from sbi_models.types import Array, Variables

Kind = dict[str, Any]
"""Type and shape of a row of a variable: "dtype", and "shape", a list of lengths or None."""

Schema = dict[str, Kind]
"""Kind of each variable."""

_CODES = {
    "BOOL": "?",
    **{
        f"{letter}{8 * size}": f"<{kind}{size}"
        for letter, kind in (("I", "i"), ("U", "u"))
        for size in (1, 2, 4, 8)
    },
}
_CODES |= {f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)}
DTYPES = {code: np.dtype(text) for code, text in _CODES.items()}
"""Types of numbers by their names in safetensors."""


def kind_of(value: Array) -> Kind:
    """Type and shape of a row of a variable (n, ...), plain or ragged."""
    if not is_ragged(value):
        return {"dtype": value.dtype.name, "shape": list(value.shape[1:])}
    full = [leaf for leaf in leaves(value) if leaf.size] or [np.empty((0, 1))]
    return {
        "dtype": np.result_type(*full).name,
        "shape": [None] * axes_of_any_length(value) + list(full[0].shape[1:]),
    }


def schema_of(variables: Variables) -> Schema:
    """Names, types and row shapes of rows in memory."""
    return {name: kind_of(value) for name, value in sorted(variables.items())}


def is_open(kind: Kind) -> bool:
    """Whether data sets of a variable may differ in length."""
    return None in kind["shape"]


def checked_schema(schema: Any) -> Schema:
    """Schema of a manifest; raises ValueError, TypeError or KeyError unless a shard can hold it."""
    names = {dtype.name for dtype in DTYPES.values()}
    for name, kind in dict(schema).items():
        if (
            set(kind) != {"dtype", "shape"}
            or kind["dtype"] not in names
            or not all(type(n) is int and n >= 0 for n in _without_open(kind["shape"]))
        ):
            raise ValueError(f"{name!r} has no type and shape of a variable")
    return dict(schema)


def _without_open(shape: list[Any]) -> list[Any]:
    """Lengths after the first two axes that may have none."""
    return shape[1 + (shape[1:2] == [None]) :] if shape[:1] == [None] else shape


def merged(one: Schema, other: Schema) -> Schema | None:
    """Schema of rows of two schemas, which differ in lengths at most; None if there is none."""
    if one == other:
        return one
    if one.keys() != other.keys():
        return None
    both = {name: _merged(kind, other[name]) for name, kind in one.items()}
    known = {name: kind for name, kind in both.items() if kind is not None}
    return known if len(known) == len(both) else None


def _merged(one: Kind, other: Kind) -> Kind | None:
    a, b = one["shape"], other["shape"]
    if one == other:
        return one
    if a[:1] == [0] or b[:1] == [0]:  # without elements, of which nobody knows what they would be
        full = other if a[:1] == [0] and b[:1] != [0] else one
        return full | {"shape": [None, *full["shape"][1:]]} if len(full["shape"]) > 1 else None
    if one["dtype"] != other["dtype"] or len(a) != len(b) or not a:
        return None
    if a[1:] == b[1:] and (len(a) > 1 or None in (*a, *b)):
        return one | {"shape": [None, *a[1:]]}
    return one | {"shape": [None, None, *a[2:]]} if a[2:] == b[2:] and len(a) > 2 else None


def covers(schema: Schema, part: dict[str, Kind | None]) -> bool:
    """Whether rows of a part are rows of a schema."""
    known = {name: kind for name, kind in part.items() if kind is not None}
    return len(known) == len(part) and merged(schema, known) == schema


def rows_of(parts: Sequence[Array], kind: Kind) -> Array:
    """Rows of several arrays of a variable in one array of their own, ragged if their lengths differ."""
    if not is_open(kind):
        rows = np.empty((sum(map(len, parts)), *kind["shape"]), kind["dtype"])
        return np.concatenate(parts, out=rows) if parts else rows
    rows = joined([_alike(part, kind) for part in parts]) if parts else as_ragged([])
    return real_or_ragged(rows, "rows of a store") if kind["shape"][1:2] == [None] else rows


def _alike(part: Array, kind: Kind) -> Array:
    """Rows of a kind; those of a shard without any elements may have been of another."""
    if is_ragged(part) or part.size:
        return part
    axes = kind["shape"].count(None)
    nothing = np.empty((0,) * axes + tuple(kind["shape"][axes:]), kind["dtype"])
    return as_ragged([as_ragged([]) if axes > 1 else nothing] * len(part))
