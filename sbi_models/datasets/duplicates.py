"""Detection of repeated simulations: a sign that a random number generator was restarted.

Two draws of a continuous variable are never equal. Discrete ones are, and rounded ones, so that equal rows
prove nothing there: only simulations with a column are looked at whose values are all different wherever rows
are, and which are not on a grid. Draws from a list of such values, as of templates without noise, are equal
in any order; generators that began anew repeat rows in the order of the first time.
"""

from collections.abc import Iterable

import numpy as np

from sbi_models.ragged import is_ragged, leaves
from sbi_models.types import Array, Variables

_MOST_COMPONENTS = 256
"""Limit of compared components of a variable: more of them would not change the result."""
_FEWEST_ROWS = 20
_MOST_OF_ONE = 20
"""Mean number of equal rows per value above which a variable counts as discrete."""
_FEWEST_IN_ORDER, _SHARE_IN_ORDER = 8, 0.7
"""Number of equal rows whose order is tested, and the share of them in order; half are in order by chance."""
_BITS = {8: 44, 4: 20}
"""Bits that differ between any two draws of a number, by its bytes, with a reserve."""


def row_keys(chunks: Iterable[Variables]) -> Array:
    """Hash of each row's floating-point variables, (n,): equal for equal rows; others collide at 2^-64."""
    parts = []
    for chunk in chunks:
        keys = np.zeros(len(next(iter(chunk.values()))), dtype=np.uint64)
        for name in sorted(chunk):
            if _is_float(chunk[name]):
                keys = (keys * np.uint64(0x9E3779B97F4A7C15)) ^ _hashes(chunk[name])
        parts.append(keys)
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def num_repeated(keys: Array) -> int:
    """Number of rows that are equal to an earlier one, if they repeat in order."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    earlier = first[which]
    return _if_in_order(earlier[earlier < np.arange(len(keys))])


def num_shared(first: Array, second: Array) -> int:
    """Number of rows of the second array that are in the first, if they repeat in order.

    >>> rows = row_keys([{"x": np.random.default_rng(1).normal(size=(50, 2))}])
    >>> num_shared(rows, rows[10:40])
    30
    """
    known, places = np.unique(first, return_index=True)
    return _if_in_order(places[np.searchsorted(known, second[np.isin(second, first)])])


def _if_in_order(places: Array) -> int:
    """Number of places, or 0 if there are many and they fall about as often as they rise."""
    return (
        len(places)
        if len(places) < _FEWEST_IN_ORDER or (np.diff(places) >= 0).mean() >= _SHARE_IN_ORDER
        else 0
    )


def is_continuous(rows: Variables) -> bool:
    """True if equal rows would be a surprise: a float column differs wherever rows do, on no grid."""
    keys = row_keys([rows])
    distinct = np.unique(keys, return_index=True)[1]
    if len(keys) < _FEWEST_ROWS or 1 < len(distinct) < len(keys) / _MOST_OF_ONE:
        return False
    bits = 0
    for value in rows.values():
        if not _is_float(value):
            continue
        size = next(leaves(value)).dtype.itemsize
        for column in _columns(value)[distinct].T:
            if len(np.unique(column)) == len(distinct) and not _on_a_grid(column):
                bits += _BITS.get(size, 8)
    return bool(bits > 2 * np.log2(len(keys)) + 4)


def _on_a_grid(column: Array) -> bool:
    """True if values are multiples of 1e-6 of their power of ten, or short decimals, like counts."""
    size = np.abs(column[np.isfinite(column)]).max(initial=0.0)
    if size == 0:
        return True
    scaled = column.astype(np.float64) * 10.0 ** (6 - np.ceil(np.log10(size)))
    return bool((np.abs(scaled - np.round(scaled)) < 1e-3).mean() > 0.5)


def _is_float(value: Array) -> bool:
    return next(leaves(value), np.empty(0, bool)).dtype.kind == "f"


def _hashes(value: Array) -> Array:
    """Hash of the numbers of each row, (n,); a ragged row has that of a plain one with its numbers."""
    if is_ragged(value):
        rows = [_first_components(row) for row in value]
        sizes, keys = np.array([len(row) for row in rows]), np.zeros(len(rows), dtype=np.uint64)
        for size in np.unique(sizes):
            of_one = np.flatnonzero(sizes == size)
            keys[of_one] = _hashes(np.stack([rows[k] for k in of_one]))
        return keys
    words = _words(value)
    rng = np.random.Generator(np.random.PCG64(words.shape[1]))
    odd = rng.integers(2**63, size=words.shape[1], dtype=np.uint64) * 2 + 1
    mixed = (words ^ (words >> np.uint64(29))) * odd
    return np.asarray((mixed ^ (mixed >> np.uint64(32))).sum(axis=1, dtype=np.uint64))


def _first_components(row: Array) -> Array:
    """First components of a data set, one axis."""
    return np.concatenate([leaf.reshape(-1) for leaf in leaves(row)] or [np.empty(0)])[:_MOST_COMPONENTS]


def _columns(value: Array) -> Array:
    """First components of all rows, (n, k), as many as each of them has."""
    if not is_ragged(value):
        return value.reshape(len(value), -1)[:, :_MOST_COMPONENTS]
    rows = [_first_components(row) for row in value]
    return np.stack([row[: min(map(len, rows))] for row in rows])


def _words(value: Array) -> Array:
    """Rows as 64-bit numbers, (n, k)."""
    flat = np.ascontiguousarray(value.reshape(len(value), -1)[:, :_MOST_COMPONENTS], dtype=np.float64)
    return flat.view(np.uint64)
