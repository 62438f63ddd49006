"""Shards: rows start..stop of a table of simulations in a safetensors file with its origin and checksum.

Its values lie in the file as they do in memory, after a header of JSON, so that any rows can be mapped
without reading others.
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
from sbi_models.errors import DataError
from sbi_models.types import Array, Variables

Origin = dict[str, str]
"""Seed and fingerprint of the simulator."""

Schema = dict[str, dict[str, Any]]
"""By variable: "dtype", and "shape" of one row."""

Range = tuple[int, int]
"""Rows from the first to before the second."""

_CODES = {
    "BOOL": "?",
    **{
        f"{letter}{8 * size}": f"<{kind}{size}"
        for letter, kind in (("I", "i"), ("U", "u"))
        for size in (1, 2, 4, 8)
    },
}
_CODES |= {f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)}
_DTYPES = {code: np.dtype(text) for code, text in _CODES.items()}

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
    """Header of a shard file; find one with `open`."""

    path: Path
    start: int
    stop: int
    origin: Origin
    digest: str
    begin: int
    places: dict[str, _Place]

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
            {name: (_DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in header.items()}
        )
        start, stop = label["rows"]
        fits = path.name == shard_name(start, stop) and all(
            place.shape[0] == stop - start for place in places.values()
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
        )

    @property
    def schema(self) -> Schema:
        """Names, types and row shapes of its variables."""
        return {
            name: {"dtype": place.dtype.name, "shape": list(place.shape[1:])}
            for name, place in sorted(self.places.items())
        }

    def is_whole(self) -> bool:
        """True if header and values are those that were written."""
        try:
            return (
                _digest(self.origin, (self.start, self.stop), self.rows(self.start, self.stop)) == self.digest
            )
        except (OSError, ValueError):  # cut short or taken away since its header was read
            return False

    def rows(self, start: int, stop: int, names: Collection[str] | None = None) -> Variables:
        """Rows of the table in this shard, raw space, mapped into memory; read-only."""
        return {
            name: self._mapped(place, start, stop)
            for name, place in self.places.items()
            if names is None or name in names
        }

    def _mapped(self, place: _Place, start: int, stop: int) -> Array:
        shape = (stop - start, *place.shape[1:])
        if not prod(shape):
            return np.empty(shape, place.dtype)
        return np.memmap(
            self.path,
            place.dtype,
            "r",
            self.begin + place.offset + (start - self.start) * place.row_size,
            shape,
        )


def checked_schema(schema: Any) -> Schema:
    """Schema of a manifest; raises ValueError, TypeError or KeyError unless a shard can hold it."""
    names = {dtype.name for dtype in _DTYPES.values()}
    for name, kind in dict(schema).items():
        if (
            set(kind) != {"dtype", "shape"}
            or kind["dtype"] not in names
            or not all(type(n) is int and n >= 0 for n in kind["shape"])
        ):
            raise ValueError(f"{name!r} has no type and shape of a variable")
    return dict(schema)


def schema_of(variables: Variables) -> Schema:
    """Names, types and row shapes of rows in memory."""
    return {
        name: {"dtype": value.dtype.name, "shape": list(value.shape[1:])}
        for name, value in sorted(variables.items())
    }


def write_shard(folder: Path, start: int, stop: int, variables: Variables, origin: Origin) -> None:
    """Write rows start..stop of a table: the same bytes for the same rows and origin.

    Raises:
        DataError: not so many rows in every variable, a type other than numbers, or the file cannot be
            written.
    """
    variables = _storable(variables, start, stop)
    label = origin | {"rows": [start, stop], "digest": _digest(origin, (start, stop), variables)}
    places = _places({name: (value.dtype, value.shape) for name, value in variables.items()})
    header = _header(label, places)
    chunks = (as_bytes(variables[name]) for name in places)
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
        code = next(code for code, dtype in _DTYPES.items() if dtype == place.dtype)
        header[name] = {"dtype": code, "shape": list(place.shape), "data_offsets": [place.offset, place.end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def as_bytes(value: Array) -> memoryview:
    """Values of a contiguous array in row order."""
    return value.reshape(-1).view(np.uint8).data


def _storable(variables: Variables, start: int, stop: int) -> Variables:
    assert 0 <= start < stop
    lengths = {name: value.shape[0] if value.ndim else 0 for name, value in variables.items()}
    if not lengths or set(lengths.values()) != {stop - start}:
        raise DataError(
            f"Expected {stop - start} simulations in every variable of rows {start} to {stop}, got {lengths}."
        )
    variables = {
        name: np.ascontiguousarray(value, value.dtype.newbyteorder("<")) for name, value in variables.items()
    }
    for name, value in variables.items():
        if value.dtype not in _DTYPES.values() or name == "__metadata__":
            raise DataError(
                f"Expected real numbers of up to 64 bits, got {value.dtype} in variable {name!r}. "
                "Convert it, or leave it out."
            )
    return variables


def _digest(origin: Origin, rows: Range, variables: Variables) -> str:
    digest = hashlib.sha256(json.dumps([origin, rows, schema_of(variables)], sort_keys=True).encode())
    for _, value in sorted(variables.items()):
        digest.update(as_bytes(value))
    return digest.hexdigest()
