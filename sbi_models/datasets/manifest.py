"""Manifest of a simulation store: its shards, their origin, and the hash of their content."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sbi_models.datasets.atomic import write_atomically
from sbi_models.datasets.schemas import Kind, Schema, checked_schema, merged
from sbi_models.datasets.shards import MOST_ROWS, Origin, Range, Shard, as_bytes, shard_name, shard_ranges
from sbi_models.datasets.tiling import Piece
from sbi_models.errors import DataError
from sbi_models.ragged import leaves, lengths
from sbi_models.types import Array

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"

_SHARDS_OF_VERSION_1 = re.compile(r"shard-\d{5}\.safetensors")
_BYTES_AT_ONCE = 1 << 24


class _UnreadableManifest(DataError):
    """The file is not JSON, or not a manifest."""


@dataclass(frozen=True)
class Manifest:
    """Content of a store's manifest file.

    Attributes:
        num_simulations: rows of the table that it has.
        origin: seed, and fingerprint of the simulator.
        schema: type and shape of a row by variable, of all shards together.
        pieces: the shards, in the order of their rows.
        extents: content hash by number of rows, for the numbers that it once had.
    """

    num_simulations: int
    origin: Origin
    schema: Schema
    pieces: tuple[Piece, ...]
    extents: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """Manifest of a folder; None if there is none.

        Raises:
            DataError: of another version, or not readable.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_bytes())
            version = content["schema_version"]
        except (FileNotFoundError, NotADirectoryError):
            if any(_SHARDS_OF_VERSION_1.fullmatch(file.name) for file in folder.glob("shard-*")):
                raise _other_version(folder, 1) from None
            return None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. Make it readable.") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _unreadable(path, error) from None
        if version != SCHEMA_VERSION:
            raise _other_version(folder, version)
        try:
            return cls._parsed(content)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise _unreadable(path, error) from None

    @classmethod
    def read_if_readable(cls, folder: Path) -> "Manifest | None":
        """Manifest of a folder; None if it is missing or damaged.

        Shards name their origin, so that a damaged manifest can be rebuilt.
        """
        try:
            return cls.read(folder)
        except _UnreadableManifest:
            return None

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> "Manifest":
        pieces = []
        for entry in content["shards"]:
            start, stop = map(int, entry["rows"])
            first, last = map(
                int, entry["file"].removeprefix("shard-").removesuffix(".safetensors").split("-")
            )
            if (
                entry["file"] != shard_name(first, last)
                or not 0 <= first <= start < stop <= last <= first + MOST_ROWS
            ):
                raise ValueError(f"{entry['file']} has no rows {start} to {stop}")
            pieces.append(Piece(start, stop, (first, last), str(entry["sha256"])))
        num_simulations = int(content["num_simulations"])
        ends = [0, *(piece.stop for piece in pieces)]
        if [piece.start for piece in pieces] != ends[:-1] or ends[-1] != num_simulations:
            raise ValueError(f"its shards are not those of {num_simulations} rows")
        origin = {"seed": str(content["seed"]), "fingerprint": str(content["fingerprint"])}
        extents = {int(rows): str(value) for rows, value in content["extents"].items()}
        if num_simulations not in extents:
            raise ValueError(f"it has no hash of {num_simulations} rows")
        return cls(num_simulations, origin, checked_schema(content["schema"]), tuple(pieces), extents)

    def content(self) -> dict[str, Any]:
        """JSON content."""
        return {
            "schema_version": SCHEMA_VERSION,
            **self.origin,
            "num_simulations": self.num_simulations,
            "content_hash": self.extents[self.num_simulations],
            "schema": self.schema,
            "extents": {str(rows): value for rows, value in sorted(self.extents.items())},
            "shards": [piece.entry() for piece in self.pieces],
        }

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomically(folder / MANIFEST, [json.dumps(self.content(), indent=1).encode()])


def refuse_others(folder: Path, origin: Origin, shards: Sequence[Range] | None = None) -> None:
    """Raise DataError if the manifest or a whole shard has another origin, or another version."""
    manifest = Manifest.read_if_readable(folder)
    if manifest is not None and manifest.origin != origin:
        raise _other_origin(folder / MANIFEST, origin, manifest.origin)
    for rows in shard_ranges(folder) if shards is None else shards:
        shard = Shard.open(folder / shard_name(*rows))
        if shard is not None and shard.origin != origin and shard.is_whole():
            raise _other_origin(shard.path, origin, shard.origin)


def hash_content(folder: Path, pieces: Sequence[Piece]) -> str:
    """sha256 over names, types, row shapes and values in the order of rows, independent of the shards.

    The shards must be intact, and agree in their variables.
    """
    schema: Schema = {}
    for piece in pieces:
        schema = _added(schema, _opened(folder, piece).schema)
    contents = {name: _Content(kind) for name, kind in sorted(schema.items())}
    for piece in pieces:
        for name, value in _opened(folder, piece).rows(piece.start, piece.stop).items():
            contents[name].add(value)
    results = {name: content.result() for name, content in contents.items()}
    kinds = {name: kind for name, (kind, _) in results.items()}
    table = [pieces[-1].stop, kinds, [digest for _, digest in results.values()]]
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _opened(folder: Path, piece: Piece) -> Shard:
    shard = Shard.open(folder / piece.file)
    assert shard is not None
    return shard


def _added(schema: Schema, other: Schema) -> Schema:
    both = merged(schema or other, other)
    assert both is not None
    return both


class _Content:
    """Content of a variable whose rows come piece by piece: its numbers, and lengths where these differ."""

    def __init__(self, kind: Kind) -> None:
        self._kind, self._values = kind, hashlib.sha256()
        self._lengths: list[list[Array]] = [[] for length in kind["shape"] if length is None]

    def add(self, value: Array) -> None:
        """Rows (n, ...), plain or ragged, after those before."""
        parts: Iterable[Array] = [value]
        for known in self._lengths:
            known += [lengths(part) for part in parts]
            parts = value
        for leaf in leaves(value):
            chunk = as_bytes(np.ascontiguousarray(leaf))
            for k in range(0, len(chunk), _BYTES_AT_ONCE):
                self._values.update(chunk[k : k + _BYTES_AT_ONCE])

    def result(self) -> tuple[Kind, str]:
        """Type and shape of a row, as open as lengths differ, and a hash of numbers and lengths."""
        shape = list(self._kind["shape"])
        open_axes: list[bytes] = []
        for axis, known in reversed(list(enumerate(self._lengths))):
            every = np.concatenate([*known, np.empty(0, "<i8")]).astype("<i8")
            if open_axes or len(np.unique(every)) > 1:
                open_axes.append(every.tobytes())
            else:
                shape[axis] = int(every.max(initial=0))
        digest = self._values.hexdigest()
        if open_axes:
            digest = hashlib.sha256(digest.encode() + b"".join(open_axes)).hexdigest()
        return self._kind | {"shape": shape}, digest


def sha256_of(path: Path) -> str | None:
    """sha256 of a file; None if it is missing or cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def listed(ranges: Sequence[Range]) -> str:
    """Ranges of rows in words."""
    return ", ".join(f"{start} to {stop}" for start, stop in ranges[:3]) + (
        ", ..." if len(ranges) > 3 else ""
    )


def _other_version(folder: Path, version: object) -> DataError:
    return DataError(
        f"The store {folder} has schema {version}; this version reads {SCHEMA_VERSION}. Delete the folder, "
        "or name another, and simulate again with the same seed."
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    what = f"it has no {error}" if isinstance(error, KeyError) else error
    return _UnreadableManifest(
        f"{path} is not readable: {what}. Simulate again with the same seed: whole shards are used."
    )


def _other_origin(path: Path, expected: Origin, got: Origin) -> DataError:
    return DataError(
        f"Expected simulations of seed {expected['seed']} and simulator {expected['fingerprint']!r} in "
        f"{path.parent}, got {path.name} of seed {got['seed']} and simulator {got['fingerprint']!r}. Name "
        "another folder, or delete this one."
    )
