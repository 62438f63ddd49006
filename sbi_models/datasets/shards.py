"""Shards: rows start..stop of a table of simulations in a safetensors file with its origin and checksum.

Its values lie in the file as they do in memory, after a header of JSON, so that any rows can be mapped
without reading others. Of a variable whose data sets differ in length there are the elements of all of them
and offsets, as in `flat_arrays`; the origin says which these are.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sbi_models.datasets.atomic import write_atomically
from sbi_models.datasets.flat_arrays import as_arrays, offset_names, refuse_bad_offsets, settled
from sbi_models.datasets.schemas import DTYPES, Schema, schema_of
from sbi_models.errors import DataError
from sbi_models.ragged import axes_of_any_length, from_flattened, is_ragged
from sbi_models.types import Array, Variables

Origin = dict[str, str]
"""Seed and fingerprint of the simulator."""

Range = tuple[int, int]
"""Rows from the first to before the second."""

MOST_ROWS = 2**26
"""Largest number of rows of a shard; a file name with more is not a shard of a store."""

_NAME = re.compile(r"shard-(\d{9,})-(\d{9,})\.safetensors")


def shard_name(start: int, stop: int) -> str:
    """File name of the shard of rows start..stop."""
    return f"shard-{start:09d}-{stop:09d}.safetensors"


def shard_ranges(folder: Path) -> list[Range]:
    """Rows of the shards in a folder by their names, whole or not, in order."""
    matches = (_NAME.fullmatch(path.name) for path in folder.glob("shard-*.safetensors"))
    ranges = ((int(match[1]), int(match[2])) for match in matches if match)
    return sorted((start, stop) for start, stop in ranges if start < stop)


@dataclass(frozen=True)
class _Place:
    """Position of a variable in a file, in bytes from the end of the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def row_size(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * prod(self.shape[1:])

    @property
    def end(self) -> int:
        """Position after this variable."""
        return self.offset + self.dtype.itemsize * prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """Header of a shard file; find one with `open`.

    Attributes:
        path: path of the file.
        start, stop: rows of the table that it has.
        origin: seed, and fingerprint of the simulator.
        digest: sha256 over origin, rows and values.
        begin: position after the header.
        places: positions of its arrays, those of offsets among them.
        ragged: name of each variable whose data sets differ in length, and the number of its offsets.
    """

    path: Path
    start: int
    stop: int
    origin: Origin
    digest: str
    begin: int
    places: dict[str, _Place]
    ragged: dict[str, int]

    @classmethod
    def open(cls, path: Path) -> "Shard | None":
        """Shard of a path; None if there is no file with the header and the size of a shard.

        Raises:
            DataError: reading is not permitted.
        """
        try:
            return cls._read(path)
        except PermissionError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. Make it readable.") from None
        except (
            OSError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ):  # headers hold anything
            return None

    @classmethod
    def _read(cls, path: Path) -> "Shard | None":
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= size - 8 else b"{}"
        header = json.loads(text)
        label = json.loads(header.pop("__metadata__")["origin"])
        places = _places(
            {name: (DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in header.items()}
        )
        start, stop = label["rows"]
        ragged = {name: int(levels) for name, levels in label.get("ragged", {}).items()}
        fits = path.name == shard_name(start, stop) and all(
            _fits(name, places, ragged, stop - start) for name in _variables(places, ragged)
        )
        fits = (
            fits and 0 <= start < stop <= start + size
        )  # rows without numbers take no space, and could be any number
        if (
            not fits
            or text != _header(label, places)
            or size != 8 + length + max(place.end for place in places.values())
        ):
            return None
        return cls(
            path,
            start,
            stop,
            {name: label[name] for name in ("seed", "fingerprint")},
            label["digest"],
            8 + length,
            places,
            ragged,
        )

    @property
    def schema(self) -> Schema:
        """Names, types and row shapes of its variables."""
        return {
            name: {
                "dtype": place.dtype.name,
                "shape": [None] * self.ragged.get(name, 0) + list(place.shape[1:]),
            }
            for name, place in sorted(self.places.items())
            if name in _variables(self.places, self.ragged)
        }

    def is_whole(self) -> bool:
        """True if header and values are those that were written."""
        try:
            arrays = {name: self._mapped(name, 0, place.shape[0]) for name, place in self.places.items()}
            return _digest(self.origin, (self.start, self.stop), arrays, self.ragged) == self.digest
        except (OSError, ValueError):  # cut short or taken away since its header was read
            return False

    def rows(
        self, start: int, stop: int, names: Collection[str] | None = None, copied: Collection[str] = ()
    ) -> Variables:
        """Rows of the table in this shard, raw space, mapped into memory, read-only; of some, copies.

        Raises:
            DataError: offsets that are none, as of a damaged file.
        """
        first, last = start - self.start, stop - self.start
        rows = {}
        for name in _variables(self.places, self.ragged):
            if names is None or name in names:
                levels = []
                a, b = first, last
                for key in offset_names(name)[: self.ragged.get(name, 0)]:
                    offsets = np.array(self._mapped(key, a, b + 1))
                    a, b = int(offsets[0]), int(offsets[-1])
                    refuse_bad_offsets(f"{key} of {self.path}", offsets - a, b - a)
                    levels.append(offsets - a)
                values = self._mapped(name, a, b)
                values = np.array(values) if name in copied else values
                rows[name] = from_flattened(np.asarray(values), levels) if levels else values
        return rows

    def _mapped(self, name: str, start: int, stop: int) -> Array:
        """Entries of an array of the file, mapped into memory."""
        place = self.places[name]
        if not 0 <= start <= stop <= place.shape[0]:
            raise DataError(f"{self.path} is damaged: it has no entries {start} to {stop} of {name!r}.")
        shape = (stop - start, *place.shape[1:])
        if not prod(shape):
            return np.empty(shape, place.dtype)
        return np.memmap(
            self.path, place.dtype, "r", self.begin + place.offset + start * place.row_size, shape
        )


def _variables(places: dict[str, _Place], ragged: dict[str, int]) -> list[str]:
    """Names of arrays that are no offsets."""
    offsets = {key for name, levels in ragged.items() for key in offset_names(name)[:levels]}
    return [name for name in places if name not in offsets]


def _fits(name: str, places: dict[str, _Place], ragged: dict[str, int], num_rows: int) -> bool:
    """Whether a variable of a header has so many rows: numbers, or offsets of data sets."""
    keys = offset_names(name)[: ragged.get(name, 0)]
    offsets = [places[key] for key in keys]
    fine = all(place.dtype == np.int64 and len(place.shape) == 1 and place.shape[0] for place in offsets)
    return fine and (offsets[0].shape[0] - 1 if offsets else places[name].shape[0]) == num_rows


def write_shard(folder: Path, start: int, stop: int, variables: Variables, origin: Origin) -> None:
    """Write rows start..stop of a table: the same bytes for the same rows and origin.

    Raises:
        DataError: not so many rows in every variable, a type other than numbers, or the file cannot be
            written.
    """
    arrays, ragged = _storable(variables, start, stop)
    digest = _digest(origin, (start, stop), arrays, ragged)
    label: dict[str, Any] = origin | {"rows": [start, stop], "digest": digest}
    label |= {"ragged": ragged} if ragged else {}
    places = _places({name: (value.dtype, value.shape) for name, value in arrays.items()})
    header = _header(label, places)
    chunks = (as_bytes(arrays[name]) for name in places)
    write_atomically(folder / shard_name(start, stop), [len(header).to_bytes(8, "little"), header, *chunks])


def _places(kinds: dict[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> dict[str, _Place]:
    """Positions of variables, one after the other, wide types first, so that every value is aligned."""
    places, end = {}, 0
    for name, (dtype, shape) in sorted(kinds.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        places[name] = _Place(dtype, shape, end)
        end = places[name].end
    return places


def _header(label: dict[str, Any], places: dict[str, _Place]) -> bytes:
    """Header in safetensors' JSON, with the label in one entry."""
    header: dict[str, Any] = {"__metadata__": {"origin": json.dumps(label, sort_keys=True)}}
    for name, place in places.items():
        code = next(code for code, dtype in DTYPES.items() if dtype == place.dtype)
        header[name] = {"dtype": code, "shape": list(place.shape), "data_offsets": [place.offset, place.end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def as_bytes(value: Array) -> memoryview:
    """Values of a contiguous array in row order."""
    return value.reshape(-1).view(np.uint8).data


def _storable(variables: Variables, start: int, stop: int) -> tuple[Variables, dict[str, int]]:
    """Rows as arrays of a file, and the number of offsets of those that are ragged."""
    assert 0 <= start < stop
    lengths = {name: value.shape[0] if value.ndim else 0 for name, value in variables.items()}
    if not lengths or set(lengths.values()) != {stop - start}:
        raise DataError(
            f"Expected {stop - start} simulations in every variable of rows {start} to {stop}, got {lengths}."
        )
    several = {
        name: settled(value, f"variable {name!r}") for name, value in variables.items() if is_ragged(value)
    }
    ragged = {name: axes_of_any_length(value) for name, value in several.items() if is_ragged(value)}
    arrays = {
        name: np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        for name, value in as_arrays(variables | several).items()
    }
    for name, value in arrays.items():
        if value.dtype not in DTYPES.values() or name == "__metadata__":
            raise DataError(
                f"Expected real numbers of up to 64 bits, got {value.dtype} in variable {name!r}. "
                "Convert it, or leave it out."
            )
    return arrays, ragged


def _digest(origin: Origin, rows: Range, arrays: Variables, ragged: dict[str, int]) -> str:
    table = [origin, rows, schema_of(arrays), *([ragged] if ragged else [])]
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode())
    for _, value in sorted(arrays.items()):
        digest.update(as_bytes(value))
    return digest.hexdigest()
