"""Simulation stores on disk: a folder of shards and a manifest, append-only.

    folder/
      manifest.json                          seed, fingerprint of the simulator, variables, shards with their
                                             sha256, hash of the content
      shard-000000000-000032768.safetensors  rows 0 .. 32767 of the table of simulations
      .lock                                  held while the manifest is written

Shards are written atomically, by any process, and the manifest after them; a shard that a manifest names is
written again only if it is damaged.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from sbi_models.arguments import positive_int
from sbi_models.datasets.atomic import refused_writes, remove_leftovers
from sbi_models.datasets.coverage import FolderCoverage
from sbi_models.datasets.duplicates import is_continuous, row_keys
from sbi_models.datasets.manifest import MANIFEST, Manifest, hash_content, listed, refuse_others, sha256_of
from sbi_models.datasets.schemas import covers, is_open, rows_of, schema_of
from sbi_models.datasets.shards import Origin, Range, Shard, write_shard
from sbi_models.datasets.tiling import Piece, until
from sbi_models.errors import DataError
from sbi_models.progress import progress_bar
from sbi_models.types import Array, Variables

_ROWS_PER_SHARD = 32_768
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class SimulationStore:
    """Finished store, or the first rows of one; make one with `create`, find one with `open`.

    Attributes:
        folder: folder of the store.
        num_simulations: rows of the table that it has.

    >>> from tempfile import TemporaryDirectory
    >>> from sbi_models.simulators import make_simulator
    >>> simulator = make_simulator(lambda rng: {"x": rng.normal()})
    >>> def rows(start, stop): return simulator.rows(start, stop, seed=1, progress=False)
    >>> with TemporaryDirectory() as folder:
    ...     store = SimulationStore.create(folder, rows, 100, seed=1, fingerprint="normal")
    ...     store.num_simulations, store.first(10).load()["x"].shape
    (100, (10, 1))
    """

    folder: Path
    num_simulations: int
    _manifest: Manifest = field(repr=False)

    @property
    def manifest(self) -> dict[str, Any]:
        """Content of the manifest file, which describes the whole store."""
        return self._manifest.content()

    @property
    def names(self) -> list[str]:
        """Names of the variables."""
        return list(self._manifest.schema)

    @cached_property
    def pieces(self) -> list[Piece]:
        """Rows of the store and the shards to read them from, in order."""
        return until(self._manifest.pieces, self.num_simulations)

    @cached_property
    def content_hash(self) -> str:
        """sha256 over names, types, row shapes and values, independent of origin and shards.

        Of a finished store it is in the manifest, and `is_intact` says whether the shards still hold it. Of
        other first rows it is computed, and raises DataError if a shard is damaged.
        """
        known = self._manifest.extents.get(self.num_simulations)
        if known is None:
            self.refuse_damage()
            known = hash_content(self.folder, self.pieces)
        return known

    def first(self, num_simulations: int) -> "SimulationStore":
        """Store of the first rows; raises DataError if there are fewer."""
        n = positive_int(num_simulations, "num_simulations")
        if n > self.num_simulations:
            raise DataError(
                f"Expected at least {n} simulations in {self.folder}, got {self.num_simulations}. "
                "Extend it with create()."
            )
        return SimulationStore(self.folder, n, self._manifest)

    def load(self) -> Variables:
        """Load all simulations: name to array of shape (num_simulations, ...), raw space.

        Raises DataError if a shard is damaged.
        """
        self.refuse_damage()
        return self.rows(0, self.num_simulations)

    def rows(self, start: int, stop: int, names: Collection[str] | None = None) -> Variables:
        """Load some simulations: name to array of shape (stop - start, ...), raw space.

        Variables whose data sets differ in length are ragged: arrays (stop - start,) of objects (N_i, ...).
        Nothing else is read, and no checksum is compared.

        Raises:
            DataError: the store has no such rows, or a shard that has them is missing or shorter than it
                should be.
        """
        if not 0 <= start <= stop <= self.num_simulations:
            raise DataError(
                f"Expected rows from 0 to {self.num_simulations} of {self.folder}, got {start} to {stop}."
            )
        kinds = {name: kind for name, kind in self._manifest.schema.items() if names is None or name in names}
        copied = [name for name, kind in kinds.items() if is_open(kind)]
        parts = []
        for piece in self.pieces:
            a, b = max(start, piece.start), min(stop, piece.stop)
            if a < b:
                shard = Shard.open(self.folder / piece.file)
                if shard is None or not covers(kinds, {name: shard.schema.get(name) for name in kinds}):
                    raise self._damaged(piece)
                parts.append(shard.rows(a, b, kinds, copied))
        # Only now, when shards have what the manifest says: it could say anything.
        return {name: rows_of([part[name] for part in parts], kind) for name, kind in kinds.items()}

    def row_keys(self) -> Array:
        """Hash of each simulation, (num_simulations,), equal for equal ones; empty if discrete."""
        starts = range(0, self.num_simulations, _ROWS_AT_ONCE)
        chunks = (self.rows(start, min(start + _ROWS_AT_ONCE, self.num_simulations)) for start in starts)
        first = next(chunks)
        return row_keys(chain([first], chunks)) if is_continuous(first) else row_keys([])

    def is_intact(self) -> bool:
        """True if every shard with rows of the store has the content that the manifest names."""
        return not any(map(self._is_damaged, self.pieces))

    def _is_damaged(self, piece: Piece) -> bool:
        return sha256_of(self.folder / piece.file) != piece.sha256

    def refuse_damage(self) -> None:
        """Raise DataError, naming the shard, unless `is_intact`."""
        for piece in self.pieces:
            if self._is_damaged(piece):
                raise self._damaged(piece)

    def _damaged(self, piece: Piece) -> DataError:
        return DataError(
            f"Shard {self.folder / piece.file} is missing or damaged: simulate again with the same "
            "seed, which writes it and no other."
        )

    @classmethod
    def open(cls, folder: str | Path) -> "SimulationStore":
        """Open an existing store; raises DataError if there is none."""
        folder = Path(folder)
        manifest = Manifest.read(folder)
        if manifest is None:
            raise DataError(f"No simulation store at {folder}: expected a folder with a {MANIFEST}.")
        return cls(folder, manifest.num_simulations, manifest)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        rows: Callable[[int, int], Variables],
        num_simulations: int,
        *,
        seed: int,
        fingerprint: str,
        rows_per_shard: int = _ROWS_PER_SHARD,
        description: str = "simulate",
    ) -> "SimulationStore":
        """Create or extend the store of the first rows of a table; existing rows are not computed again.

        Args:
            folder: folder of the store, created if missing. Several processes may write at once.
            rows: computes rows start..stop of the table of simulations, raw space, each a function of seed
                and number alone.
            num_simulations: number of simulations.
            seed: recorded.
            fingerprint: what identifies the simulator; recorded.
            rows_per_shard: rows of a file; the last one of each extension may have less.
            description: description of the progress bar.

        Raises:
            DataError: the folder holds simulations of another seed or fingerprint, variables differ between
                shards, a simulation is there twice, or writing fails.
        """
        folder, n = Path(folder), positive_int(num_simulations, "num_simulations")
        origin = _origin(seed, fingerprint)
        refuse_others(folder, origin)
        with refused_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        coverage = FolderCoverage(folder, n, origin)
        missing = coverage.missing(positive_int(rows_per_shard, "rows_per_shard"))
        with progress_bar(
            description, n, done=n - sum(min(stop, n) - min(start, n) for start, stop in missing)
        ) as advance:
            for start, stop in missing:
                if not coverage.finds(start, stop):  # another process may have written it meanwhile
                    variables = rows(start, stop)
                    coverage.refuse_other_schema(schema_of(variables), f"rows {start} to {stop}")
                    cls.write(folder, start, stop, variables, seed=seed, fingerprint=fingerprint)
                    coverage.finds(start, stop)
                advance(min(stop, n) - min(start, n))
        if absent := coverage.absent():
            raise DataError(
                f"Rows {listed(absent)} of {folder} cannot be read back after they were written. "
                "Check the disk."
            )
        return cls._finished(coverage)

    @classmethod
    def check(cls, folder: str | Path, *, seed: int, fingerprint: str) -> None:
        """Raise DataError if the folder holds simulations of another origin or another version."""
        refuse_others(Path(folder), _origin(seed, fingerprint))

    @classmethod
    def missing(
        cls,
        folder: str | Path,
        num_simulations: int,
        *,
        seed: int,
        fingerprint: str,
        rows_per_shard: int = _ROWS_PER_SHARD,
    ) -> list[Range]:
        """Shards that a store of `num_rows` rows still needs: first row, and the one after the last.

        Rows are missing if no whole shard of this origin has them: it is absent, damaged, or of another
        origin, which `check` refuses. A damaged shard is listed with all of its rows, though they may be more
        than were asked for.
        """
        coverage = FolderCoverage(
            Path(folder), positive_int(num_simulations, "num_simulations"), _origin(seed, fingerprint)
        )
        return coverage.missing(positive_int(rows_per_shard, "rows_per_shard"))

    @classmethod
    def write(
        cls, folder: str | Path, start: int, stop: int, variables: Variables, *, seed: int, fingerprint: str
    ) -> None:
        """Write one shard, whole or not at all; any number of processes may write at once.

        It is part of the store after `finish`.

        Raises:
            DataError: not rows start..stop of numbers, the folder or this shard is of another origin, or the
                file cannot be written.
        """
        folder, origin = Path(folder), _origin(seed, fingerprint)
        with refused_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
        refuse_others(folder, origin, [(start, stop)])
        write_shard(folder, start, stop, variables, origin)

    @classmethod
    def finish(
        cls,
        folder: str | Path,
        num_simulations: int,
        *,
        seed: int,
        fingerprint: str,
        rows_per_shard: int = _ROWS_PER_SHARD,
    ) -> "SimulationStore":
        """Check the shards of the first rows and add them to the manifest.

        Raises:
            DataError: shards are missing, differ in their variables, are of another origin, or hold a
                simulation twice.
        """
        folder, origin = Path(folder), _origin(seed, fingerprint)
        refuse_others(folder, origin)
        coverage = FolderCoverage(folder, positive_int(num_simulations, "num_simulations"), origin)
        if missing := coverage.missing(positive_int(rows_per_shard, "rows_per_shard")):
            raise DataError(
                f"Expected {coverage.num_rows} simulations in {folder}, got no whole shard of rows "
                f"{listed(missing)}. Write them."
            )
        return cls._finished(coverage)

    @classmethod
    def _finished(cls, coverage: FolderCoverage) -> "SimulationStore":
        """Store of a coverage with all rows.

        If the manifest cannot be written it must name them already.
        """
        if coverage.has_news():
            coverage.refuse_repeats()
        try:
            manifest = coverage.note()
        except DataError:
            if coverage.old is None or coverage.has_news():
                raise
            manifest = (
                coverage.old
            )  # a folder that can only be read: the hash of fewer rows than it has is not noted
        return cls(coverage.folder, manifest.num_simulations, manifest).first(coverage.num_rows)


def _origin(seed: int, fingerprint: str) -> Origin:
    return {"seed": str(seed), "fingerprint": fingerprint}
