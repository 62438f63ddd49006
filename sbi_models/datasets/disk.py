"""Training batches from files, a few of them in memory at a time."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sbi_models import seeding
from sbi_models.datasets.files import LoadFunction, read_file
from sbi_models.datasets.manifest import MANIFEST
from sbi_models.datasets.schemas import kind_of, merged
from sbi_models.datasets.sharing import digest_of, whole_batches
from sbi_models.datasets.store import SimulationStore
from sbi_models.errors import DataError, suggest
from sbi_models.progress import progress_bar
from sbi_models.ragged import as_ragged, fine_rows, is_ragged, joined
from sbi_models.ragged import content as bytes_of
from sbi_models.types import Array, Variables

PerFile = Literal["one", "many"]
"""One simulation per file, without a leading axis, or many, with one."""

_Shape = tuple[int | None, ...]
"""Lengths of the axes of a simulation; None for any length."""

_ROWS_IN_MEMORY = 32_768
_ROWS_OF_A_BLOCK = 4096
"""Rows of a simulation store that are read together like a file, so that batches do not depend on shards."""


@dataclass(frozen=True)
class SimulationFiles:
    """Files of equal variables and shapes, or blocks of rows of a simulation store; create it with `find`.

    Attributes:
        paths: paths in the order of their names; none for a store.
        rows: simulations in each file or block.
        names: variables that are read.
        per_file: "one" simulation a file, without a leading axis, or "many", with one.
        load_fn: reads a file, for formats that are not known.
        content: sha256 over all values.
        store: what blocks are read from.
    """

    paths: tuple[Path, ...]
    rows: tuple[int, ...]
    names: tuple[str, ...]
    per_file: PerFile
    load_fn: LoadFunction | None
    content: str
    store: SimulationStore | None = None

    @classmethod
    def find(
        cls,
        root: str | Path | SimulationStore,
        pattern: str,
        names: Sequence[str],
        *,
        load_fn: LoadFunction | None = None,
        per_file: PerFile | None = None,
        may_miss: Collection[str] = (),
        any_length: Collection[str] = (),
    ) -> "SimulationFiles":
        """Read every file once and check all before training.

        A file holds many simulations if every variable in it has two axes or more and all have the same
        length, and one if lengths differ; if that is ambiguous, `per_file` must be given. A folder that the
        simulation store has written is known by its manifest, and only what that names is read. Variables in
        `may_miss` may hold NaN, and those in `any_length` may differ in length between simulations.

        Raises:
            DataError: no folder, no file, or, naming the file: a missing variable, other shapes than in the
                first file, NaN or inf, not readable.
        """
        if isinstance(root, SimulationStore):
            return cls._of_store(root, names, may_miss)
        root = Path(root)
        if not root.is_dir():
            raise DataError(
                f"Expected a folder of simulations, got {root}, which is no folder. Check the path."
            )
        if (root / MANIFEST).is_file():
            return cls._of_store(SimulationStore.open(root), names, may_miss)
        paths = tuple(sorted(path for path in root.glob(pattern) if path.is_file()))
        if not paths:
            raise DataError(
                f"No file in {root} matches {pattern!r}. Check the folder, or pass pattern= for "
                "another ending, such as '*.npz'."
            )
        first = _chosen(read_file(paths[0], load_fn), names, paths[0])
        per_file = per_file or _guess(first, paths[0])
        shapes = _shapes(first, per_file, paths[0])
        rows, content = [], sha256()
        with progress_bar("check files", len(paths)) as advance:
            for path in paths:
                variables = _chosen(read_file(path, load_fn), names, path)
                here = _shapes(variables, per_file, path)
                name = next((name for name in names if not _fits(here, shapes, name, any_length)), None)
                if name is not None:
                    raise DataError(
                        f"Expected {name!r} of shape {shapes[name]} in each simulation, as in "
                        f"{paths[0].name}, got {here[name]} in {path}."
                    )
                for name in names:
                    content.update(f"{name} {variables[name].dtype} {variables[name].shape}".encode())
                    content.update(bytes_of(variables[name]))
                _check_finite(variables, per_file, may_miss, path)
                rows.append(len(variables[names[0]]) if per_file == "many" else 1)
                advance()
        return cls(paths, tuple(rows), tuple(names), per_file, load_fn, content.hexdigest())

    @classmethod
    def _of_store(
        cls, store: SimulationStore, names: Sequence[str], may_miss: Collection[str]
    ) -> "SimulationFiles":
        store.refuse_damage()
        with progress_bar("check files", len(store.pieces)) as advance:
            for piece in store.pieces:
                path = store.folder / piece.file
                _check_finite(
                    _chosen(store.rows(piece.start, piece.stop, names), names, path), "many", may_miss, path
                )
                advance()
        n = store.num_simulations
        rows = tuple(min(_ROWS_OF_A_BLOCK, n - start) for start in range(0, n, _ROWS_OF_A_BLOCK))
        return cls((), rows, tuple(names), "many", None, store.content_hash, store)

    def read(self, numbers: Sequence[int]) -> Variables:
        """The simulations of some files, raw space: name to array of shape (n, ...)."""
        if self.store is not None:
            starts = [k * _ROWS_OF_A_BLOCK for k in numbers]
            blocks = [
                self.store.rows(start, start + self.rows[k], self.names)
                for start, k in zip(starts, numbers, strict=True)
            ]
            return {name: joined([block[name] for block in blocks]) for name in self.names}
        parts = [_chosen(read_file(self.paths[k], self.load_fn), self.names, self.paths[k]) for k in numbers]
        if self.per_file == "one":
            parts = [{name: _one_row(value) for name, value in part.items()} for part in parts]
        return {name: joined([part[name] for part in parts]) for name in self.names}

    def some(self, num_rows: int, seed: int) -> Variables:
        """About `num` simulations from randomly chosen files, for moments."""
        order = seeding.generator(seed, "files for moments").permutation(len(self.rows))
        enough = int(np.searchsorted(np.cumsum(np.array(self.rows)[order]), num_rows)) + 1
        return self.read([int(k) for k in order[:enough]])


class DiskBatches:
    """Shuffled chunks of batches from files, in an order that is a function of seed and epoch.

    It implements the protocol `RawChunks`.

    Files are shuffled, read in groups of about 32 768 simulations, and shuffled within the group. For the
    members of an ensemble, each file is still read once in an epoch, and its rows go to the members that have
    them; a member waits if its batch is not full before those of others, so that steps are in common.

    Args:
        files: files of the simulations.
        batch_size: rows of a batch; the last one of an epoch may be shorter.
        seed: seed of the order.
        windows: the rows of each member of an ensemble, counted through the files in the order of their
            names; None if all have all.
    """

    in_thread = True

    def __init__(
        self, files: SimulationFiles, batch_size: int, seed: int, windows: list[Array] | None = None
    ) -> None:
        self.files, self.batch_size, self.seed, self.windows = files, batch_size, seed, windows
        self.epoch = 0
        self._ends = np.cumsum(files.rows)

    @property
    def fingerprint(self) -> str:
        """sha256 over values of the files, batch size and seed."""
        return sha256(
            f"{self.batch_size} {self.seed} {self.files.content}".encode() + digest_of(self.windows)
        ).hexdigest()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return ceil(
            (sum(self.files.rows) if self.windows is None else max(map(len, self.windows))) / self.batch_size
        )

    def __iter__(self) -> Iterator[Any]:
        if self.windows is not None:
            yield from self._chunks_of_members(self.windows)
            return
        left: Variables = {}
        for _, group in self._shuffled_groups():
            rows = _joined(left, group)
            n = len(next(iter(rows.values())))
            whole = n - n % self.batch_size
            if whole:
                yield {name: value[:whole] for name, value in rows.items()}
            left = {name: value[whole:] for name, value in rows.items()} if whole < n else {}
        if left:
            yield left

    def _chunks_of_members(self, windows: list[Array]) -> Iterator[list[Variables | None]]:
        has = np.zeros((len(windows), sum(self.files.rows)), dtype=bool)
        for member, window in enumerate(windows):
            has[member, window] = True
        left: list[Variables] = [{}] * len(windows)
        for numbers, group in self._shuffled_groups():
            left = [
                _joined(rows, {name: value[has[member, numbers]] for name, value in group.items()})
                for member, rows in enumerate(left)
            ]
            whole = whole_batches(left, self.batch_size) * self.batch_size
            if whole:
                yield [{name: value[:whole] for name, value in rows.items()} for rows in left]
                left = [{name: value[whole:] for name, value in rows.items()} for rows in left]
        last = [rows if len(next(iter(rows.values()))) else None for rows in left]
        if any(last):
            yield last

    def _shuffled_groups(self) -> Iterator[tuple[Array, Variables]]:
        """Rows of some files at a time, with their numbers, counted over all files."""
        rng = seeding.generator(self.seed, "files", self.epoch)
        for files in self._groups(rng.permutation(len(self.files.rows))):
            group = self.files.read(files)
            order = rng.permutation(len(next(iter(group.values()))))
            numbers = np.concatenate(
                [np.arange(self._ends[k] - self.files.rows[k], self._ends[k]) for k in files]
            )
            yield numbers[order], {name: value[order] for name, value in group.items()}

    def _groups(self, order: Array) -> list[list[int]]:
        """Consecutive files of the order, with about as many rows as may be in memory."""
        ends = np.cumsum(np.array(self.files.rows)[order])
        cuts = [
            0,
            *(
                int(np.searchsorted(ends, k * _ROWS_IN_MEMORY)) + 1
                for k in range(1, ceil(ends[-1] / _ROWS_IN_MEMORY))
            ),
        ]
        return [
            [int(k) for k in order[a:b]] for a, b in pairwise([*dict.fromkeys(cuts), len(order)]) if b > a
        ]


def _joined(first: Variables, second: Variables) -> Variables:
    return {name: joined([first[name], value]) if first else value for name, value in second.items()}


def _chosen(variables: Variables, names: Sequence[str], path: Path) -> Variables:
    missing = [name for name in names if name not in variables]
    if missing:
        raise DataError(
            f"Expected {', '.join(names)} in every file, got no {missing[0]!r} in {path}. "
            f"{suggest(missing[0], variables)}"
        )
    return {name: variables[name] for name in names}


def _check_finite(variables: Variables, per_file: PerFile, may_miss: Collection[str], path: Path) -> None:
    for name, value in variables.items():
        fine = fine_rows(
            value if per_file == "many" else _one_row(value),
            (lambda part: ~np.isinf(part)) if name in may_miss else np.isfinite,
        )
        if fine.all():
            continue
        rows = np.flatnonzero(~fine)
        listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        where = (
            f"{len(rows)} of {len(value)} rows (rows {listed})" if per_file == "many" else "the simulation"
        )
        raise DataError(
            f"Expected finite numbers, got NaN or inf in {where} of variable {name!r} in {path}. "
            "Drop them, or write it again."
        )


def _guess(variables: Variables, path: Path) -> PerFile:
    lengths = {len(value) if value.ndim else 0 for value in variables.values()}
    if len(lengths) > 1 or 0 in lengths:
        return "one"
    if all(value.ndim >= 2 or is_ragged(value) for value in variables.values()) or lengths == {1}:
        return "many"
    raise DataError(
        f"Expected to see whether files hold one simulation or many, but every variable of {path} has "
        f"{lengths.pop()} rows or components. Say so: simulations_per_file='one' or 'many'."
    )


def _shapes(variables: Variables, per_file: PerFile, path: Path) -> dict[str, _Shape]:
    """Shape of one simulation by variable."""
    if per_file == "one":
        variables = {name: _one_row(value) for name, value in variables.items()}
    lengths = {name: len(value) if value.ndim else 0 for name, value in variables.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(
            f"Expected the same number of simulations in every variable of {path}, got {lengths}."
        )
    return {name: tuple(kind_of(value)["shape"]) for name, value in variables.items()}


def _fits(here: dict[str, _Shape], shapes: dict[str, _Shape], name: str, any_length: Collection[str]) -> bool:
    """Whether simulations of two shapes may be of one variable."""
    if name not in any_length:
        return here[name] == shapes[name]
    one, other = ({name: {"dtype": "", "shape": list(of[name])}} for of in (here, shapes))
    return merged(one, other) is not None or len(here[name]) == len(shapes[name]) == 1


def _one_row(value: Array) -> Array:
    """One simulation as rows."""
    return as_ragged([value]) if is_ragged(value) else value[None]
