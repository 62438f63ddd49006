"""Tiling of a table's rows by shards: rows of existing shards are used, and missing rows are listed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from sbi_models.datasets.shards import Range, shard_name


@dataclass(frozen=True)
class Piece:
    """Rows start..stop of a table, read from a shard that has these and perhaps more.

    Attributes:
        start, stop: the rows that are read.
        shard: all rows that the shard has.
        sha256: of its file.
    """

    start: int
    stop: int
    shard: Range
    sha256: str

    @property
    def file(self) -> str:
        """Name of the shard file."""
        return shard_name(*self.shard)

    def entry(self) -> dict[str, Any]:
        """Entry of a manifest."""
        return {"file": self.file, "rows": [self.start, self.stop], "sha256": self.sha256}


def tiled(chosen: Sequence[Piece], whole: dict[Range, str], num_rows: int) -> list[Piece]:
    """Disjoint pieces in order: those chosen, and between and after them rows of other whole shards.

    Shards of one origin agree where they overlap, as those of two processes that wanted unequal numbers do.
    """
    pieces: list[Piece] = []
    for start, stop in gaps(chosen, num_rows):
        position = start
        for (first, last), sha256 in sorted(whole.items()):
            a, b = max(first, position), min(last, stop)
            if a < b:
                pieces.append(Piece(a, b, (first, last), sha256))
                position = b
    return sorted([*chosen, *pieces], key=lambda piece: piece.start)


def gaps(pieces: Sequence[Piece], num_rows: int) -> list[Range]:
    """Rows of 0..num_rows that no piece has."""
    ends = [
        (0, 0),
        *((piece.start, piece.stop) for piece in pieces if piece.start < num_rows),
        (num_rows, num_rows),
    ]
    return [(before[1], after[0]) for before, after in pairwise(ends) if before[1] < after[0]]


def until(pieces: Sequence[Piece], num_rows: int) -> list[Piece]:
    """Pieces of the first rows."""
    return [replace(piece, stop=min(piece.stop, num_rows)) for piece in pieces if piece.start < num_rows]


def to_write(missing: Iterable[Range], broken: Sequence[Range], rows_per_shard: int) -> list[Range]:
    """Missing rows as shards: a broken one keeps its range, others end at multiples of rows_per_shard."""
    return list(
        dict.fromkeys(shard for start, stop in missing for shard in _cut(start, stop, broken, rows_per_shard))
    )


def _cut(start: int, stop: int, broken: Sequence[Range], rows_per_shard: int) -> Iterator[Range]:
    while start < stop:
        again = next((shard for shard in broken if shard[0] <= start < shard[1]), None)
        end = min(
            [
                stop,
                (start // rows_per_shard + 1) * rows_per_shard,
                *(first for first, _ in broken if first > start),
            ]
        )
        yield again or (start, end)
        start = again[1] if again else end
