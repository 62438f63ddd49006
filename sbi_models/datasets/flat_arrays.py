"""Ragged variables in files: plain arrays of their elements, and offsets that say where data sets end.

A file format of plain arrays by name, such as `.npz`, holds a ragged variable `x` in two or three of them:

    x            elements of all data sets, one after the other, (total, d)
    x/offsets    first element of each data set, and the end of the last, (n + 1,): 0, N_1, N_1 + N_2, ...;
                 of data sets of groups: first group of each data set
    x/offsets 2  of data sets of groups: first element of each group, and the end of the last
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sbi_models.errors import DataError
from sbi_models.ragged import as_ragged, flattened, from_flattened, is_ragged, leaves, real_or_ragged
from sbi_models.types import Array, Variables, VariablesLike


def offset_names(name: str) -> list[str]:
    """Names of the arrays with the offsets of a ragged variable, of data sets and of their groups."""
    return [f"{name}/offsets", f"{name}/offsets 2"]


def to_arrays(variables: VariablesLike) -> Variables:
    """Convert variables to plain arrays by name, as `numpy.savez` and safetensors write them.

    A ragged variable `x` becomes its elements `x`, (total, d), and the offsets of its data sets, `x/offsets`
    (n + 1,); with groups of elements, also those of the groups, `x/offsets 2`. Others stay as they are.
    `from_arrays` is the inverse, and files with such arrays are read as data sets of different lengths.

    Args:
        variables: name to array (n, ...), or to a ragged array or a list of n arrays (N_i, d).

    Raises:
        DataError: data sets differ in more than their length, or a variable has the name of offsets.

    >>> arrays = to_arrays({"x": [np.zeros((3, 1)), np.ones((5, 1))], "mu": np.zeros((2, 1))})
    >>> {name: array.shape for name, array in arrays.items()}, arrays["x/offsets"]
    ({'x': (8, 1), 'x/offsets': (3,), 'mu': (2, 1)}, array([0, 3, 8]))
    """
    return as_arrays({name: settled(value, f"variable {name!r}") for name, value in variables.items()})


def as_arrays(variables: Variables) -> Variables:
    """`to_arrays` of settled variables."""
    arrays: Variables = {}
    for name, value in variables.items():
        arrays[name], levels = flattened(value) if is_ragged(value) else (value, [])
        for key, offsets in zip(offset_names(name), levels, strict=False):
            if key in variables:
                raise DataError(
                    f"Expected no variable {key!r} beside the ragged variable {name!r}, whose offsets have "
                    "that name, got one. Rename it."
                )
            arrays[key] = offsets
    return arrays


def from_arrays(arrays: Mapping[str, Array], where: str = "") -> Variables:
    """Convert plain arrays, as `to_arrays` gives them, to variables: those with offsets are ragged.

    Args:
        arrays: name to array.
        where: words after a name in messages, such as " of data.npz".

    Raises:
        DataError: offsets that do not rise from 0 to the number of elements.

    >>> arrays = {"x": np.zeros((8, 1)), "x/offsets": np.array([0, 3, 8])}
    >>> [part.shape for part in from_arrays(arrays)["x"]]
    [(3, 1), (5, 1)]
    """
    variables, taken = dict(arrays), set()
    for name, array in arrays.items():
        keys = [key for key in offset_names(name) if key in arrays]
        if not keys or keys[0] != offset_names(name)[0] or name in taken:
            continue
        taken.update(keys)
        levels = [arrays[key] for key in keys]
        for level, (key, offsets) in enumerate(zip(keys, levels, strict=True)):
            end = len(levels[level + 1]) - 1 if level + 1 < len(levels) else len(array) if array.ndim else -1
            refuse_bad_offsets(f"{key}{where}", offsets, end)
        variables[name] = settled(from_flattened(array, levels), f"variable {name!r}{where}")
    return {name: value for name, value in variables.items() if name not in taken}


def refuse_bad_offsets(name: str, offsets: Array, end: int) -> None:
    """Raise DataError unless an array (k + 1,) of whole numbers never falls, from 0 to an end."""
    fine = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 0
    if not fine or offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise DataError(
            f"Expected {name!r} as whole numbers that rise from 0 to {end}, the end of the last part, got "
            f"{offsets.dtype} of shape {offsets.shape}: {np.array2string(offsets.reshape(-1), threshold=6)}. "
            "Write it with sbi_models.datasets.to_arrays(variables)."
        )


def settled(value: object, what: str) -> Array:
    """A variable, plain if its data sets have one shape; elements of a ragged one have one type and shape."""
    array = real_or_ragged(value, what)
    if not is_ragged(array):
        return array
    full = [leaf for leaf in leaves(array) if leaf.size]
    kind = np.result_type(*full) if full else np.dtype(np.float64)
    return _of_one_kind(array, kind, full[0].shape[1:] if full else (1,))


def _of_one_kind(array: Array, kind: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if is_ragged(array):
        return as_ragged([_of_one_kind(part, kind, shape) for part in array])
    return array.astype(kind, copy=False) if array.size else np.empty((0, *shape), kind)
