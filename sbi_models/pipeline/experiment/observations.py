"""Real observations from CSV files.

Two layouts are read, with or without a header line, which for data sets in rows may be numbers, such as times
or wavelengths. They are told apart by their number of columns (long where both fit); for a variable of shape
(20, 1):

    long: one row a measurement   data set, position, value        3 columns (2 + the last axis of the
        variable)
    wide: one row a data set      value 1, value 2, ..., value 20  20 columns (all numbers of the variable)

Data sets that may differ in length, those of a summary network that was trained with several, are read from
the long layout alone, and may have as many rows as they like, one at least. Their order is that of the
positions. The position may be left out: then there are 2 columns (1 + the last axis), the rows of a data set
stand together, and their order is that of the file. A header of names is for readers; columns are told by
their place.

    data set, position, value      data set, value
    a, 1, 0.3                      a, 0.3
    a, 2, -1.2                     a, -1.2
    b, 1, 0.7                      b, 0.7

Of a variable that may be missing, an empty cell, NA or NaN (in small or capital letters) is a missing value,
NaN in the array. A missing measurement has its row in the long layout, too, with an empty value.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from math import prod
from pathlib import Path
from typing import TextIO

import numpy as np

from sbi_models.errors import DataError
from sbi_models.ragged import real_or_ragged
from sbi_models.types import Array, FloatArray

_Rows = list[tuple[int, list[str]]]
"""Lines of a file with their numbers, cut into cells."""

_CERTAIN_ORDER = 8
"""Numbers of which 2 of 40 320 orders rise or fall all along."""

_MISSING = ("", "NA", "NAN")
"""Cells of missing values, in capital letters."""

_ENOUGH_ROWS = 1000
"""To see that a file has not the columns that are expected."""

_LONGEST_CELL, _LONGEST_LINE = 100, 10_000
"""Letters of a number, and of a line that may have more columns than are expected."""


def read_observations(
    path: str | Path,
    variable: str,
    shape: tuple[int | None, ...],
    *,
    may_miss: bool = False,
    any_length: Callable[[], bool] = lambda: False,
) -> tuple[list[str], Array]:
    """Data sets of one variable from a CSV file.

    Args:
        path: the file.
        variable: its name, for messages.
        shape: shape of one data set; None for an axis of any length.
        may_miss: whether values may be missing, which are NaN then.
        any_length: function that tells whether the first axis may have another length than in the shape; it
            is asked if one has.

    Returns:
        A label for each data set and the values, shape (num_datasets, *shape), in the units of the file; an
        array of objects (N_i, ...), if lengths differ.

    Raises:
        DataError: file missing or empty, a first line that may be a data set or a header, a number of columns
            that fits neither layout, text, inf, a data set of another length, missing values where none may
            be, a data set of empty cells alone.
    """
    path = Path(path)
    if len(shape) > 2 and None in shape:
        raise DataError(
            f"{path}: expected a file that holds groups of elements for {variable!r}, whose groups differ in "
            "size, got a CSV file. Use .npz or .safetensors, as sbi_models.datasets.to_arrays writes it."
        )
    size, long = _columns(shape)
    known = {n for n in (size, long, long and long - 1) if n is not None}
    rows, has_names = _rows(path, known, may_miss=may_miss)
    widths = sorted({len(row) for _, row in rows})
    if long is not None and widths in ([long], [long - 1]):
        same = widths == [long] and set(Counter(row[0] for _, row in rows).values()) == {shape[0]}
        if not same and (size is None or any_length()):
            parts = _by_data_set(path, rows, variable, has_position=widths == [long], may_miss=may_miss)
            return list(parts), real_or_ragged(list(parts.values()), f"{variable!r} of {path}")
    if size is not None and widths == [long]:
        return _long(path, rows, variable, shape, may_miss=may_miss)
    if size is not None and widths == [size]:
        rows = rows if has_names else _without_numeric_header(path, rows)
        read = partial(_numbers, path, variable=variable, may_miss=may_miss)
        values = np.array([read(line, row) for line, row in rows]).reshape(-1, *shape)
        return [str(i + 1) for i in range(len(values))], values
    raise _other_layout(path, rows, variable, shape)


def _columns(shape: tuple[int | None, ...]) -> tuple[int | None, int | None]:
    """Columns of the wide and of the long layout, with positions; None for one that there is not."""
    lengths = [length for length in shape if length is not None]
    return (
        prod(lengths) if len(lengths) == len(shape) else None,
        2 + lengths[-1] if len(shape) == 2 else None,
    )


def _other_layout(path: Path, rows: _Rows, variable: str, shape: tuple[int | None, ...]) -> DataError:
    """Error for a number of columns that fits no layout."""
    size, long = _columns(shape)
    wide = f"{size} columns (one row a data set)"
    if size is None and long is not None:
        wide = f"{long - 1} columns (data set, value, in the order of the file)"
    layouts = wide
    if long is not None:
        layouts = f"{long} columns (data set, position, value: one row a measurement) or {wide}"
    widths = sorted({len(row) for _, row in rows})
    got = (
        f"{widths[0]} column{'s' if widths[0] > 1 else ''}"
        if len(widths) == 1
        else f"rows of {' and '.join(map(str, widths))} columns"
    )
    cure = " Columns are separated by commas, not semicolons." if ";" in rows[0][1][0] else ""
    cure = " Is it transposed?" if len(rows) == size else cure
    of = f"({', '.join('N' if length is None else str(length) for length in shape)})"
    if size is None:
        cure = cure or " Say in the first column which data set a row belongs to."
    return DataError(
        f"{path}: expected {layouts} for {variable!r} of shape {of if size is None else shape}, got "
        f"{got}.{cure}"
    )


def _rows(path: Path, widths: set[int], *, may_miss: bool) -> tuple[list[tuple[int, list[str]]], bool]:
    """Numbered lines that are not blank, without a header of names; and whether there was one.

    Lines much longer than these numbers of columns need are refused before they are cut up. A line of empty
    cells is blank, but refused where it may be a data set of which all is missing.
    """
    longest = max(_LONGEST_LINE, max(widths) * _LONGEST_CELL)
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: expected a CSV file of observations, got no file.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows: list[tuple[int, list[str]]] = []
            for line, row in enumerate(csv.reader(_short_lines(path, file, longest)), start=1):
                if any(row) and any(map(str.strip, row)):
                    rows.append((line, [cell.strip() for cell in row]))
                    if len(rows) == _ENOUGH_ROWS and widths.isdisjoint(len(cells) for _, cells in rows):
                        break  # the caller says what is wrong
                elif may_miss and len(row) > 1:
                    raise DataError(
                        f"{path}, line {line}: expected a data set, got empty cells alone. Delete the line; "
                        "or, if all of a data set is missing, write NA into its cells."
                    )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Expected a CSV file of observations.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as CSV: {error}") from None
    has_names = bool(rows) and not any(
        _is_number(cell) or (may_miss and cell.upper() == "NA") for cell in rows[0][1]
    )
    rows = rows[1:] if has_names else rows
    if not rows:
        raise DataError(f"{path}: expected a CSV file with at least one data set, got no numbers.")
    return rows, has_names


def _short_lines(path: Path, file: TextIO, longest: int) -> Iterator[str]:
    """The lines of a file, read no further than they may be long."""
    for number in count(1):
        line = file.readline(longest + 1)
        if len(line) > longest:
            raise DataError(
                f"{path}, line {number}: expected at most {longest} letters for its numbers, got "
                "more. Is it one data set a row?"
            )
        if not line:
            return
        yield line


def _without_numeric_header(path: Path, rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Rows of data sets, without a first row that is a header of numbers, such as times or wavelengths.

    Such a header rises or falls all along, mostly in equal steps, which data hardly do by chance: 2 of n!
    orders do. Where all rows fall in unequal steps they are decays, and the first is a data set. Where a
    first row may be either, it is an error.
    """
    line, first = rows[0]
    others, n = [row for _, row in rows[1:]], len(first)
    if not others or not all(map(_is_finite, first)):
        return rows
    if not all(_is_finite(cell) or _is_missing(cell) for row in others for cell in row):
        return rows
    header, data = np.array(first, dtype=float), np.array([[_number(cell) for cell in row] for row in others])
    counts_up = first == [str(k) for k in range(n)]  # the column numbers that pandas writes
    whole = bool((header == np.round(header)).all() and ((data == np.round(data)) | np.isnan(data)).all())
    steps, gaps = np.diff(header / 2), np.isnan(np.diff(data / 2))  # of halves, which cannot overflow
    same_steps = bool((np.isclose(np.diff(data / 2), steps, rtol=1e-6, atol=0) | gaps).all())
    if counts_up:
        is_header, is_data = n > 3 or not whole, False
    elif n < 3 or not _in_order(header[None])[0] or same_steps:
        is_header, is_data = False, True
    elif np.allclose(steps, steps[0], rtol=1e-6, atol=0):
        is_header, is_data = not whole, False
    else:  # a third of all data of three numbers are in order
        all_fall = bool((header[1:] < header[:-1]).all() and ((data[:, 1:] < data[:, :-1]) | gaps).all())
        is_header, is_data = n >= _CERTAIN_ORDER and not _in_order(data).any(), n == 3 or all_fall
    if is_header or is_data:
        return rows[1:] if is_header else rows
    raise DataError(
        f"{path}, line {line}: expected to see whether the first line is a data set or a header, got "
        f"numbers that may be either: {', '.join(first[:4])}{', ...' if n > 4 else ''}. Write a header of "
        "names above the data sets, such as "
        f"{','.join(f'x{k + 1}' for k in range(min(n, 3)))}{',...' if n > 3 else ''}."
    )


def _in_order(rows: FloatArray) -> Array:
    """Which rows (n, k) rise, or fall, all along, as far as they are there."""
    later, earlier = rows[:, 1:], rows[:, :-1]
    gaps = np.isnan(later) | np.isnan(earlier)
    return np.asarray(((later > earlier) | gaps).all(axis=1) | ((later < earlier) | gaps).all(axis=1))


def _long(
    path: Path, rows: _Rows, variable: str, shape: tuple[int | None, ...], *, may_miss: bool
) -> tuple[list[str], FloatArray]:
    """Data sets of one length from a row for each measurement."""
    datasets = _by_data_set(path, rows, variable, has_position=True, may_miss=may_miss)
    for label, values in datasets.items():
        if len(values) != shape[0]:
            raise DataError(
                f"{path}: expected {shape[0]} rows in each data set, got {len(values)} in {label!r}."
                + (" What is missing has a row, with an empty value." if may_miss else "")
            )
    return list(datasets), np.array(list(datasets.values()))


def _by_data_set(
    path: Path, rows: _Rows, variable: str, *, has_position: bool, may_miss: bool
) -> dict[str, FloatArray]:
    """Elements of each data set, (N_i, d), in the order of their positions, or else of the file."""
    datasets: dict[str, list[tuple[float, FloatArray]]] = {}
    before = None
    for line, row in rows:
        label, cells = row[0], row[1 + has_position :]
        position = float(line)
        if has_position:
            _refuse_empty(path, line, row)
            (position,) = _numbers(path, line, row[1:2], variable="position", may_miss=False)
        elif label in datasets and label != before:
            raise DataError(
                f"{path}, line {line}: expected the rows of a data set one after the other, as there are no "
                f"positions, got {label!r} again after {before!r}. Sort them, or add a column of positions."
            )
        values = _numbers(path, line, cells, variable=variable, may_miss=may_miss)
        datasets.setdefault(label, []).append((position, values))
        before = label
    for label, measurements in datasets.items():
        if len({position for position, _ in measurements}) < len(measurements):
            raise DataError(f"{path}: expected each position once in a data set, got one twice in {label!r}.")
    return {
        label: np.array([values for _, values in sorted(measurements, key=lambda item: item[0])])
        for label, measurements in datasets.items()
    }


def _refuse_empty(path: Path, line: int, row: list[str]) -> None:
    """Raise DataError for a data set that has a label, and nothing else."""
    if not any(row[1:]):
        raise DataError(
            f"{path}, line {line}: expected a position and values, got none of {row[0]!r}. Delete the line; "
            "a data set without elements cannot be said in CSV, but in .npz or in Python."
        )


def _numbers(path: Path, line: int, cells: list[str], *, variable: str, may_miss: bool) -> FloatArray:
    for cell in cells:
        if may_miss and _is_missing(cell):
            continue
        if not _is_finite(cell):
            cure = "Drop the data set or fill in the value."
            if _is_missing(cell) and not may_miss and variable != "position":
                cure += (
                    f" If values of {variable!r} may be missing, say so in the experiment, before the "
                    f"training: missing: {{{variable}: {variable}_there}}, with such gaps in the simulations."
                )
            raise DataError(f"{path}, line {line}: expected finite numbers, got {cell!r}. {cure}")
    return np.array([_number(cell) for cell in cells])


def _number(cell: str) -> float:
    """The number in a cell, NaN for a missing value."""
    return np.nan if _is_missing(cell) else float(cell)


def _is_missing(cell: str) -> bool:
    return cell.upper() in _MISSING


def _is_finite(cell: str) -> bool:
    return _is_number(cell) and bool(np.isfinite(float(cell)))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # 1_5, which Python takes for 15
