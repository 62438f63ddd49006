"""Coverage of a simulation folder: whole and broken shards, missing rows, and the resulting manifest."""

from collections.abc import Iterator
from pathlib import Path

from sbi_models.datasets.atomic import locked
from sbi_models.datasets.duplicates import is_continuous, num_repeated, row_keys
from sbi_models.datasets.manifest import Manifest, hash_content, refuse_others, sha256_of
from sbi_models.datasets.schemas import Schema, merged
from sbi_models.datasets.shards import MOST_ROWS, Origin, Range, Shard, shard_name, shard_ranges
from sbi_models.datasets.tiling import Piece, gaps, tiled, to_write, until
from sbi_models.errors import DataError
from sbi_models.types import Variables

_ROWS_AT_ONCE = 4096


class FolderCoverage:
    """Shards with some of the first `num_rows` rows, each read once and compared with its checksum.

    A shard is whole if its file is the one that the manifest names, or, if no manifest does, has this origin
    and holds what was written.
    """

    def __init__(self, folder: Path, num_rows: int, origin: Origin) -> None:
        self.folder, self.num_rows, self.origin = folder, num_rows, origin
        self._read = Manifest.read_if_readable(folder)
        self.old = self._read if self._read is not None and self._read.origin == origin else None
        self.pieces: tuple[Piece, ...] = self.old.pieces if self.old else ()
        self._named = {piece.shard: piece.sha256 for piece in self.pieces}
        self.whole: dict[Range, str] = {}
        self.schemas: dict[Range, Schema] = {}
        self.broken: list[Range] = []
        named = [piece.shard for piece in self.pieces if piece.start < num_rows]
        self.limit = max([num_rows, *(piece.stop for piece in self.pieces if piece.start < num_rows)])
        for start, stop in sorted({*named, *shard_ranges(folder)}):
            if (
                start < num_rows
                and not self.finds(start, stop)
                and ((start, stop) in named or stop <= num_rows)
            ):
                self.broken.append((start, stop))

    def finds(self, start: int, stop: int) -> bool:
        """True if a whole shard of these rows is on disk now."""
        rows, path = (start, stop), self.folder / shard_name(start, stop)
        sha256 = sha256_of(path)
        if sha256 is None:
            return False
        if self.old and self._named.get(rows) == sha256:
            self.whole[rows], self.schemas[rows] = sha256, self.old.schema
        else:
            shard = Shard.open(path)
            if shard is None or shard.origin != self.origin or not shard.is_whole():
                return False
            self.whole[rows], self.schemas[rows] = sha256, shard.schema
        return True

    def tiles(self) -> list[Piece]:
        """Pieces of whole shards that cover rows: those of the manifest first, then those of other shards."""
        intact = [
            piece
            for piece in self.pieces
            if piece.start >= self.num_rows or self.whole.get(piece.shard) == piece.sha256
        ]
        return tiled(intact, self.whole, self.limit)

    def absent(self) -> list[Range]:
        """Rows that no whole shard has."""
        return gaps(self.tiles(), self.limit)

    def missing(self, rows_per_shard: int) -> list[Range]:
        """Shards to write so that no row is absent."""
        return to_write(self.absent(), self.broken, min(rows_per_shard, MOST_ROWS))

    def refuse_other_schema(self, schema: Schema, where: str) -> None:
        """Raise DataError if these rows have other variables than those on disk."""
        known = self._schema()
        if known is not None and merged(known, schema) is None:
            first = shard_name(*next(iter(self.schemas)))
            raise DataError(
                f"Expected variables {_listed(known)} in {where}, as in {first} of {self.folder}, got "
                f"{_listed(schema)}. Let the simulator return one type and shape for every row, but for the "
                "number of elements of sets and series, and simulate again in another folder."
            )

    def _schema(self) -> Schema | None:
        """Schema of all shards on disk as far as they agree; None if there is none."""
        known = None
        for schema in self.schemas.values():
            known = schema if known is None else merged(known, schema) or known
        return known

    def chunks(self) -> Iterator[Variables]:
        """Iterate over all requested rows in chunks, mapped into memory."""
        for piece in until(self.tiles(), self.num_rows):
            shard = Shard.open(self.folder / piece.file)
            assert shard is not None
            for start in range(piece.start, piece.stop, _ROWS_AT_ONCE):
                yield shard.rows(start, min(start + _ROWS_AT_ONCE, piece.stop))

    def refuse_repeats(self) -> None:
        """Raise DataError if a continuous simulator has repeated simulations."""
        if (
            self.num_rows > 1
            and is_continuous(next(self.chunks()))
            and (repeated := num_repeated(row_keys(self.chunks())))
        ):
            raise DataError(
                f"Expected {self.num_rows} different simulations in {self.folder}, got {repeated} that are "
                "equal to others. Generators of random numbers began anew: draw from the argument rng "
                "alone, delete the folder, and simulate again."
            )

    def has_news(self) -> bool:
        """True if the manifest lacks some of this."""
        return (
            self.old is None or self.num_rows > self.old.num_simulations or tuple(self.tiles()) != self.pieces
        )

    def note(self) -> Manifest:
        """Write the manifest, with the content of the old one and of what other processes added meanwhile.

        Raises:
            DataError: shards differ in their variables, the other process has another origin, or the manifest
                cannot be written.
        """
        manifest = self.manifest()
        if manifest != self.old:
            with locked(self.folder):
                if Manifest.read_if_readable(self.folder) != self._read:
                    refuse_others(self.folder, self.origin)
                    manifest = FolderCoverage(self.folder, self.num_rows, self.origin).manifest()
                manifest.write(self.folder)
        return manifest

    def manifest(self) -> Manifest:
        """Manifest of all earlier rows and those requested; hashes of unchanged shards are reused."""
        for rows, shard_schema in self.schemas.items():
            self.refuse_other_schema(shard_schema, shard_name(*rows))
        tiles, schema = self.tiles(), self._schema()
        assert schema is not None
        total, extents = self.num_rows, {}
        if self.old is not None:
            total = max(total, self.old.num_simulations)
            unchanged = min([piece.start for piece in set(self.pieces) - set(tiles)], default=total)
            extents = {rows: value for rows, value in self.old.extents.items() if rows <= unchanged}
        pieces = until(tiles, total)
        for n in {self.num_rows, total} - set(extents):
            extents[n] = hash_content(self.folder, until(tiles, n))
        return Manifest(total, self.origin, schema, tuple(pieces), extents)


def _listed(schema: Schema) -> str:
    return ", ".join(f"{name} {kind['dtype']} {tuple(kind['shape'])}" for name, kind in schema.items())
