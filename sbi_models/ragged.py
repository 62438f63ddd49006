"""Ragged variables: data sets of different lengths as arrays of objects, padded arrays and masks of them.

A variable is ragged if its data sets differ in their number of elements. It is then an array (n,) of objects,
one array (N_i, d) for each data set, whose rows are taken, counted and reordered like those of any other
variable. A data set of groups of elements is such an array itself: (G_i,) objects of shape (N_ij, d).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sbi_models.errors import DataError
from sbi_models.numeric_input import real_array
from sbi_models.types import Array

_LEVELS = 2
"""Levels of elements whose number may differ: elements, or groups and their elements."""

_NUMBERS = {int, float, bool}


def is_ragged(value: Any) -> bool:
    """Whether a variable is an array of objects, one array for each data set."""
    return isinstance(value, np.ndarray) and value.dtype == object


def as_ragged(parts: Sequence[Array]) -> Array:
    """Arrays, one for each data set, as an array (n,) of objects.

    >>> as_ragged([np.zeros((3, 1)), np.ones((5, 1))]).shape
    (2,)
    """
    ragged = np.empty(len(parts), dtype=object)
    for row, part in enumerate(parts):
        ragged[row] = part
    return ragged


# ---- input ------------------------------------------------------------------


def real_or_ragged(value: Any, what: str, *, copy: bool = False) -> Array:
    """A value as an array of numbers of one shape or, where its data sets differ in length, a ragged one.

    Args:
        value: what `real_array` takes; a list, or an array of objects, of arrays (N_i, ...) that differ in
            N_i alone; nested lists of numbers that do so.
        what: name for messages.
        copy: whether the result shall share no memory with the value.

    Raises:
        DataError: for what `real_array` refuses, and for data sets that differ in more than their length.

    >>> [part.shape for part in real_or_ragged([[[1.0], [2.0]], [[3.0]]], "'x'")]
    [(2, 1), (1, 1)]
    >>> real_or_ragged([[1.0, 2.0], [3.0, 4.0]], "'x'").shape
    (2, 2)
    """
    return _real_or_ragged(value, what, copy, _LEVELS)


def _real_or_ragged(value: Any, what: str, copy: bool, levels: int) -> Array:
    if not levels or not differs_in_length(value):
        return real_array(value, what, copy=copy)
    parts = [
        _real_or_ragged(part, f"data set {row} of {what}", copy, levels - 1) for row, part in enumerate(value)
    ]
    return _alike(parts, what)


def differs_in_length(value: Any) -> bool:
    """Whether a value holds parts of different lengths, which NumPy makes no array of."""
    if is_ragged(value):
        return all(isinstance(part, np.ndarray | list | tuple) for part in value.flat)
    return isinstance(value, list | tuple) and any(isinstance(axis, frozenset) for axis in _shape(value))


def _shape(part: Any) -> tuple[Any, ...]:
    """Shape of an array, or of nested lists; where these differ, what differs is a set of shapes."""
    if not isinstance(part, list | tuple):
        return tuple(getattr(part, "shape", ()))
    if _NUMBERS.issuperset(map(type, part)):  # the most frequent lists, of which there may be millions
        return (len(part),)
    inner = {_shape(item) for item in part}
    return (len(part), *(next(iter(inner)) if len(inner) == 1 else (frozenset(inner),) * bool(inner)))


def _alike(parts: list[Array], what: str) -> Array:
    """Data sets that differ in length alone as a ragged array, or as a plain one if they do not differ."""
    if any(map(is_ragged, parts)):  # groups of elements: a data set with groups of one size is a plain array
        parts = [part if is_ragged(part) else as_ragged(list(part)) for part in parts]
        widths = {leaf.shape[1:] for part in parts for leaf in part if leaf.size}
    elif _are_groups(parts):  # of another size in each data set
        return _alike([as_ragged(list(part)) for part in parts], what)
    else:
        widths = {part.shape[1:] for part in parts if part.size}
    if any(part.ndim == 0 for part in parts) or len(widths) > 1:
        shapes = " and ".join(map(str, sorted({part.shape for part in parts}, key=str)[:2]))
        raise DataError(
            f"Expected data sets that differ in their length alone in {what}, got shapes {shapes}. Give each "
            "as an array (N, d) of N elements, each of the same d numbers."
        )
    shape = next(iter(widths), (1,))
    if not any(map(is_ragged, parts)):
        parts = [part if part.size else part.reshape(0, *shape) for part in parts]
        if len({part.shape for part in parts}) == 1:
            return np.stack(parts)
    return as_ragged(parts)


def _are_groups(parts: list[Array]) -> bool:
    """Whether plain data sets are (groups, N, d) each, with another N."""
    alike = {(part.ndim, part.shape[2:]) for part in parts}
    return len(alike) == 1 and parts[0].ndim > _LEVELS and len({part.shape[1] for part in parts}) > 1


# ---- one variable ------------------------------------------------------------


def leaves(value: Array) -> Iterator[Array]:
    """The plain arrays that a variable is made of, in order; a plain variable is its only one."""
    if not is_ragged(value):
        yield value
        return
    for part in value:
        yield from leaves(part)


def element_shapes(value: Array) -> set[tuple[int, ...]]:
    """Shapes of the elements of groups of a variable whose groups differ, as far as there are elements.

    Of a plain array (n, groups, N, ...), those of its elements.
    """
    if not is_ragged(value):
        return {value.shape[3:]}
    parts = [part for part in value if not is_ragged(part)]
    if len(parts) == len(value):  # elements, without groups
        return {part.shape[1:] for part in parts if part.size}
    return {leaf.shape[1:] for part in value if is_ragged(part) for leaf in part if leaf.size} | {
        part.shape[2:] for part in parts if part.size
    }


def lengths(value: Array) -> Array:
    """Number of elements of each data set, (n,), along the first axis after the rows.

    >>> lengths(as_ragged([np.zeros((3, 1)), np.ones((5, 1))]))
    array([3, 5])
    """
    if not is_ragged(value):
        return np.full(len(value), value.shape[1] if value.ndim > 1 else 1)
    return np.array([len(part) for part in value], dtype=int)


def joined(parts: Sequence[Array]) -> Array:
    """Rows of several arrays of one variable in one array, ragged if any of them is or their lengths differ.

    >>> joined([np.zeros((2, 3, 1)), np.zeros((1, 4, 1))]).shape
    (3,)
    """
    if not any(map(is_ragged, parts)) and len({part.shape[1:] for part in parts}) <= 1:
        return np.concatenate(parts)
    return _alike([row for part in parts for row in part], "rows of several arrays")


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays have the same type, shape and bytes, ragged ones in each data set."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if is_ragged(a):
        return all(map(same_bits, a, b))
    return a.tobytes() == b.tobytes()


def content(value: Array) -> bytes:
    """Bytes that determine the values of a variable, for a hash: lengths and numbers of ragged ones."""
    if not is_ragged(value):
        return np.ascontiguousarray(value).tobytes()
    return b"".join(str(part.shape).encode() + content(part) for part in value)


def as_float64(value: Array) -> Array:
    """Numbers as contiguous, writable float64, as torch takes them; those of ragged variables one by one."""
    if is_ragged(value):
        return as_ragged([as_float64(part) for part in value])
    return np.require(value, dtype=np.float64, requirements=["C", "W"])


def fine_rows(value: Array, fine: Any) -> Array:
    """Rows, as booleans (n,), where `fine`, a function of an array, is True throughout."""
    if is_ragged(value):
        return np.array([all(bool(fine(leaf).all()) for leaf in leaves(part)) for part in value], dtype=bool)
    return np.asarray(fine(value).reshape(len(value), -1).all(axis=1))


# ---- padding -----------------------------------------------------------------


def axes_of_any_length(value: Array) -> int:
    """Number of axes after the rows along which a ragged variable has any length: 1, or 2 for groups."""
    return 2 if any(map(is_ragged, value)) else 1


def padded(value: Array, axes: int = 1) -> tuple[Array, Array]:
    """A variable as an array (n, length, d) with a mask (n, length), True where an element is.

    Padding repeats the elements of the data set, so that it lies where they do; a data set without elements
    repeats the first element of all, or is zeros. Groups of elements give (n, groups, length, d) and a mask
    (n, groups, length).

    Args:
        value: ragged, or a plain array (n, N, ...), whose mask is True throughout.
        axes: number of axes after the rows that are padded: 1 for elements, 2 for groups of elements.

    >>> array, mask = padded(as_ragged([np.array([[1.0], [2.0]]), np.array([[3.0]])]))
    >>> array[..., 0], mask
    (array([[1., 2.],
           [3., 3.]]), array([[ True,  True],
           [ True, False]]))
    """
    if not is_ragged(value) and value.size:
        return value, np.ones(value.shape[: 1 + axes], dtype=bool)
    if not is_ragged(value):  # no data set has an element
        value = as_ragged(list(value))
    if axes == _LEVELS:
        value = as_ragged([part if is_ragged(part) else as_ragged(list(part)) for part in value])
    every = list(leaves(value))
    first = next((leaf for leaf in every if leaf.size), None)
    filler = np.zeros(every[0].shape[1:] if every else (1,)) if first is None else first[0]
    kind = np.result_type(*every) if every else np.float64
    if axes == _LEVELS:
        return _padded_groups(value, filler, kind)
    most = max(1, int(lengths(value).max()))
    array, mask = (
        np.empty((len(value), most, *filler.shape), dtype=kind),
        np.zeros((len(value), most), dtype=bool),
    )
    for row, part in enumerate(value):
        _fill(array[row], mask[row], part, filler)
    return array, mask


def with_nan(value: Array) -> Array:
    """A variable (n, length, ...) as float64, with NaN in place of elements that a data set has not.

    >>> with_nan(as_ragged([np.ones((2, 1)), np.ones((1, 1))]))[..., 0]
    array([[ 1.,  1.],
           [ 1., nan]])
    """
    if not is_ragged(value):
        return value.astype(np.float64)
    array, mask = padded(value, axes_of_any_length(value))
    return np.where(mask.reshape(mask.shape + (1,) * (array.ndim - mask.ndim)), array, np.nan)


def _padded_groups(value: Array, filler: Array, kind: Any) -> tuple[Array, Array]:
    groups = max(1, int(lengths(value).max()))
    most = max([1, *(len(leaf) for leaf in leaves(value))])
    array = np.empty((len(value), groups, most, *filler.shape), dtype=kind)
    mask = np.zeros((len(value), groups, most), dtype=bool)
    for row, part in enumerate(value):
        for group in range(groups):
            _fill(array[row, group], mask[row, group], part[group] if group < len(part) else (), filler)
    return array, mask


def _fill(place: Array, mask: Array, part: Any, filler: Array) -> None:
    number = len(part)
    mask[:number] = True
    if number:
        place[:] = part[np.arange(len(place)) % number] if number < len(place) else part
    else:
        place[:] = filler


# ---- files -------------------------------------------------------------------


def flattened(value: Array) -> tuple[Array, list[Array]]:
    """A ragged variable as its elements (total, d) and, for each level, offsets of the parts, (parts + 1,).

    >>> values, offsets = flattened(as_ragged([np.zeros((3, 1)), np.ones((5, 1))]))
    >>> values.shape, offsets
    ((8, 1), [array([0, 3, 8])])
    """
    every = list(leaves(value))
    levels, parts = [], list(value)
    for _ in range(axes_of_any_length(value)):
        levels.append(np.cumsum([0, *map(len, parts)]))
        parts = every
    return np.concatenate(every) if every else np.empty((0, 1)), levels


def from_flattened(values: Array, levels: Sequence[Array]) -> Array:
    """The ragged variable whose elements and offsets `flattened` gave; parts are views of the elements.

    >>> [part.shape for part in from_flattened(np.zeros((8, 1)), [np.array([0, 3, 8])])]
    [(3, 1), (5, 1)]
    """
    parts = values
    for offsets in reversed(levels):
        parts = as_ragged([parts[a:b] for a, b in pairwise(offsets)])
    return parts
