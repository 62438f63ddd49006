"""Real observations from CSV files.

Two layouts are read, with or without a header line, told apart by their number of columns (long where both fit); for a variable of shape
(20, 1):

    long: one row a measurement   data set, position, value        3 columns (2 + the last axis of the variable)
    wide: one row a data set      value 1, value 2, ..., value 20  20 columns (all numbers of the variable)
"""

import csv
from math import prod
from pathlib import Path

import numpy as np

from sbi_models.errors import DataError
from sbi_models.types import FloatArray


def read_observations(path: str | Path, variable: str, shape: tuple[int, ...]) -> tuple[list[str], FloatArray]:
    """Data sets of one variable from a CSV file.

    Args:
        path: the file.
        variable: its name, for messages.
        shape: of one data set.

    Returns:
        A label for each data set and the values, shape (n_datasets, *shape), in the units of the file.

    Raises:
        DataError: file missing or empty, a number of columns that fits neither layout, NaN or text, a data set of another length.
    """
    path = Path(path)
    rows = _rows(path)
    wide, long = prod(shape), 2 + shape[-1] if len(shape) == 2 else None
    widths = sorted({len(row) for _, row in rows})
    if widths == [long]:
        return _long(path, rows, shape)
    if widths == [wide]:
        if rows[0][1] == [str(k) for k in range(wide)]:
            rows = rows[1:]  # the column numbers that pandas writes as a header
        values = np.array([_numbers(path, line, row) for line, row in rows]).reshape(-1, *shape)
        return [str(i + 1) for i in range(len(values))], values
    layouts = f"{wide} columns (one row a data set)"
    if long is not None:
        layouts = f"{long} columns (data set, position, value: one row a measurement) or {layouts}"
    got = f"{widths[0]} column{'s' if widths[0] > 1 else ''}" if len(widths) == 1 else f"rows of {' and '.join(map(str, widths))} columns"
    cure = " Columns are separated by commas, not semicolons." if ";" in rows[0][1][0] else ""
    cure = " Is it transposed?" if len(rows) == wide else cure
    raise DataError(f"{path}: expected {layouts} for {variable!r} of shape {shape}, got {got}.{cure}")


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Numbered lines that are not blank, without the header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [
                (line, [cell.strip() for cell in row]) for line, row in enumerate(csv.reader(file), start=1) if any(map(str.strip, row))
            ]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Expected a CSV file of observations.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as CSV: {error}") from None
    if rows and not any(_is_number(cell) for cell in rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: expected a CSV file with at least one data set, got no numbers.")
    return rows


def _long(path: Path, rows: list[tuple[int, list[str]]], shape: tuple[int, ...]) -> tuple[list[str], FloatArray]:
    datasets: dict[str, list[tuple[float, FloatArray]]] = {}
    for line, row in rows:
        (position,) = _numbers(path, line, row[1:2])
        datasets.setdefault(row[0], []).append((position, _numbers(path, line, row[2:])))
    for label, measurements in datasets.items():
        if len({position for position, _ in measurements}) < len(measurements):
            raise DataError(f"{path}: expected each position once in a data set, got one twice in {label!r}.")
        if len(measurements) != shape[0]:
            raise DataError(f"{path}: expected {shape[0]} rows in each data set, got {len(measurements)} in {label!r}.")
    ordered = [[values for _, values in sorted(m, key=lambda item: item[0])] for m in datasets.values()]
    return list(datasets), np.array(ordered)


def _numbers(path: Path, line: int, cells: list[str]) -> FloatArray:
    for cell in cells:
        if not _is_number(cell) or not np.isfinite(float(cell)):
            raise DataError(f"{path}, line {line}: expected finite numbers, got {cell!r}. Drop the data set or fill in the value.")
    return np.array([float(cell) for cell in cells])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
