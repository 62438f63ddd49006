"""Background simulation: rows computed ahead by worker processes, after these reproduced some to the bit.

    here    |0 1 2 3 4 5 6 7|            |                 chunk by chunk until the others are ready
    others     start   0 1 2|= the same? | 8 9 ... 15 | 16 ...    then all of them, a few chunks ahead

Rows are a function of seed and row alone, so that it does not matter who computes which, as long as the
functions are the same elsewhere: they are not if a module was changed after its import, and sums can differ
in their last bits with the number of threads. So the first blocks are computed twice, and other processes are
used only if theirs are the same to the bit. Chunks are sent in pieces of about a tenth of a second, blocks of
fast simulators hundreds at a time and those of slow ones alone.
"""

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

from sbi_models.errors import SbiModelsError, SimulationError
from sbi_models.simulators.blocks import Block, difference
from sbi_models.simulators.table import Table

if TYPE_CHECKING:
    from sbi_models.simulators.worker_pool import Piece, WorkerPool

    Coming = Future[Piece | SbiModelsError]

_TRIAL_SECONDS = 0.05
"""Seconds of computed blocks that workers must reproduce to the bit in their trial."""
_PIECE_SECONDS = 0.1
_WORTHWHILE_SECONDS = 10.0
"""Remaining seconds of simulation from which a worker is started unasked; starting one takes about a second.

With less, the training of a cheap simulator was a tenth slower for it.
"""
_PATIENCE = 0.0
"""Seconds to wait for workers to be ready before this process computes another block itself."""


def may_start_one() -> bool:
    """True if this process may start a background process unasked.

    It may not if it is one of several processes that share the work.
    """
    return multiprocessing.current_process().name == "MainProcess"


@dataclass
class _Chunk:
    """A range of rows, with the futures of its blocks in order."""

    table: Table | SbiModelsError
    """Table of the rows, or the error that prevented it."""
    coming: "deque[Coming]" = field(default_factory=deque)


class Background:
    """Tables of ranges of rows and their blocks, computed ahead of use.

    Args:
        table: makes the table of rows start to stop.
        ranges: (start, stop) of the rows, in the order in which they are used.
        processes: other processes to use, -1 for one a core.
        only_if_worthwhile: start them only once there is known to be enough work left for them.
        give_up: called with the reason if other processes cannot be used.
    """

    def __init__(
        self,
        table: Callable[[int, int], Table],
        ranges: Sequence[tuple[int, int]],
        processes: int,
        *,
        only_if_worthwhile: bool,
        give_up: Callable[[str], None],
    ) -> None:
        self._table, self._give_up, self._processes, self._only_if_worthwhile = (
            table,
            give_up,
            processes,
            only_if_worthwhile,
        )
        self._ranges = deque(ranges)
        self._rows_left = sum(stop - start for start, stop in ranges)
        self._queue: deque[_Chunk] = deque()
        self._pool: WorkerPool | None = None
        self._trial: tuple[Coming, list[Block]] | None = None
        self._alone = self._trusted = False
        self._seconds = 0.0
        """Seconds per block."""

    def chunks(self) -> Generator[tuple[Table, Iterator[Block]], None, None]:
        """Iterate over the table of each range and an iterator of its blocks.

        Exhaust the blocks before the next range.
        """
        try:
            while self._ranges or self._queue:
                self._fill()
                chunk = self._queue.popleft() if self._queue else self._next()
                if isinstance(chunk.table, SbiModelsError):
                    raise chunk.table
                yield chunk.table, self._received(chunk) if chunk.coming else self._here(chunk, chunk.table)
        finally:
            if self._pool is not None:
                self._pool.close()

    def _next(self) -> _Chunk:
        start, stop = self._ranges.popleft()
        self._rows_left -= stop - start
        try:
            return _Chunk(self._table(start, stop))
        except SbiModelsError as error:
            return _Chunk(error)

    # ---- here ---------------------------------------------------------------

    def _here(self, chunk: _Chunk, table: Table) -> Iterator[Block]:
        """Compute the blocks of a chunk in this process; the last ones go to workers once these are ready."""
        done: list[Block] = []
        seconds = 0.0
        for index in table.indices:
            if self._trusted:
                self._send(chunk, table, table.indices[len(done) :])
                self._fill()
                break
            began = time.perf_counter()
            done.append(table.block(index))
            seconds += time.perf_counter() - began
            yield done[-1]
            self._consider(table, done, seconds)
        yield from self._received(chunk)

    def _consider(self, table: Table, done: list[Block], seconds: float) -> None:
        """Start a trial of workers on the blocks just computed here, or look at the results of that trial."""
        if self._alone or self._trusted:
            return
        if self._trial is not None:
            self._judge(*self._trial)
            return
        blocks_left = len(table.indices) - len(done) + self._rows_left / table.block_size
        self._seconds = seconds / len(done)
        if self._only_if_worthwhile:
            enough = seconds >= _TRIAL_SECONDS or len(done) == len(table.indices)
            if not enough or self._seconds * blocks_left < _WORTHWHILE_SECONDS:
                return
        if blocks_left:
            self._start(table, list(done))

    def _start(self, table: Table, done: list[Block]) -> None:
        from sbi_models.simulators.worker_pool import WorkerPool, cores  # noqa: PLC0415 - imports joblib

        processes = cores() if self._processes == -1 else self._processes
        if self._only_if_worthwhile and cores() < 2:
            self._alone = True
            return
        try:
            self._pool = WorkerPool(table, processes)
            self._trial = self._pool.submit(table, table.indices[: len(done)]), done
        except Exception as error:  # noqa: BLE001 - there are many ways in which a system does not let processes start
            self._stay(f"{error}")

    def _judge(self, coming: "Coming", expected: list[Block]) -> None:
        if not coming.done() and not (_PATIENCE and wait([coming], timeout=_PATIENCE).done):
            return
        try:
            piece = coming.result()
        except Exception as error:  # noqa: BLE001
            self._stay(f"a worker process failed to start, {type(error).__name__}: {error}")
            return
        if isinstance(piece, SbiModelsError):
            self._stay(f"{piece}")
        elif what := difference(piece.blocks, expected):
            self._stay(
                f"{what} differ there from what they are here. Functions may depend on modules that were "
                "changed after their import, on counters of their own, or on the number of threads."
            )
        else:
            self._trusted = True
            self._learn(piece)

    def stay(self, reason: str) -> None:
        """Stop using other processes."""
        if not self._alone:
            self._stay(reason)

    def _stay(self, reason: str) -> None:
        self._alone = True
        self._give_up(f"{reason} Pass workers=1 to keep them here without this warning.")

    # ---- elsewhere ----------------------------------------------------------

    def _fill(self) -> None:
        """Send chunks ahead: two pieces for each process, and one chunk more."""
        while self._trusted and self._ranges:
            pieces = len(self._queue[-1].coming) if self._queue else 1
            if len(self._queue) >= 1 + ceil(2 * self._processes_used / max(pieces, 1)):
                return
            chunk = self._next()
            if isinstance(chunk.table, Table):
                self._send(chunk, chunk.table, chunk.table.indices)
            self._queue.append(chunk)

    @property
    def _processes_used(self) -> int:
        assert self._pool is not None
        return self._pool.processes

    def _send(self, chunk: _Chunk, table: Table, indices: range) -> None:
        assert self._pool is not None
        pieces = min(len(indices), max(1, round(len(indices) * self._seconds / _PIECE_SECONDS)))
        edges = [len(indices) * k // pieces for k in range(pieces + 1)]
        for first, last in pairwise(edges):
            try:
                chunk.coming.append(self._pool.submit(table, indices[first:last]))
            except BrokenProcessPool as error:
                broken: Coming = Future()
                broken.set_exception(error)
                chunk.coming.append(broken)

    def _received(self, chunk: _Chunk) -> Iterator[Block]:
        while chunk.coming:
            try:
                piece = chunk.coming.popleft().result()
            except BrokenProcessPool as error:
                raise SimulationError(WORKER_DIED) from error
            if isinstance(piece, SbiModelsError):
                raise piece
            self._learn(piece)
            yield from piece.blocks

    def _learn(self, piece: "Piece") -> None:
        self._seconds = piece.seconds / len(piece.blocks)


WORKER_DIED = (
    "A worker process died while it simulated ahead: a function called os._exit, crashed in compiled code, "
    "or ran out of memory. Find the row with workers=1, or use fewer workers if memory is short."
)
