"""Pool of worker processes that is reused between epochs and trainings."""

import os
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky import ProcessPoolExecutor

from sbi_models.errors import SbiModelsError
from sbi_models.simulators.blocks import Block
from sbi_models.simulators.pool import computed, cut_short, follow, loaded, pickled_table
from sbi_models.simulators.table import Table

_IDLE_SECONDS = 300
_FRESH_SECONDS = 150
"""Idle seconds up to which workers are reused; work given to workers about to end may be lost."""

_CLOSING_SECONDS = 0.5
"""Seconds in which workers may finish cancelled work before they are killed."""
_ONE_THREAD = dict.fromkeys(
    [f"{name}_NUM_THREADS" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMBA", "NUMEXPR")]
    + ["VECLIB_MAXIMUM_THREADS"],
    "1",
)


@dataclass
class Piece:
    """Consecutive blocks, and the seconds that they took."""

    blocks: list[Block]
    seconds: float


class WorkerPool:
    """Worker processes with the functions of a table, borrowed from the pool until `close`.

    The functions travel through a file, since they may hold large arrays, and each worker reads them once.

    Raises:
        ConfigurationError: if functions cannot be sent to other processes.
        OSError: if the system lets no file be written or no process be started.
    """

    def __init__(self, table: Table, processes: int) -> None:
        pickled = pickled_table(table)
        self.processes = processes
        self._unfinished: set[Future[Piece | SbiModelsError]] = set()
        handle, path = mkstemp(prefix="sbi-models-functions-")
        self._functions = Path(path)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(pickled)
            self._executor = _borrowed(processes)
        except BaseException:
            self._functions.unlink()
            raise

    def submit(self, table: Table, indices: range) -> "Future[Piece | SbiModelsError]":
        """Submit blocks of a table with the functions of the table of `__init__`, and any rows."""
        rows = {"seed": table.seed, "start": table.start, "stop": table.stop}
        future: Future[Piece | SbiModelsError] = self._executor.submit(
            _piece, str(self._functions), rows, indices, np.geterr()
        )
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def close(self) -> None:
        """Return the workers to the pool; those that are still busy after half a second are killed."""
        unfinished = list(self._unfinished)
        for future in unfinished:
            future.cancel()
        busy = True
        try:
            busy = bool(wait(unfinished, timeout=_CLOSING_SECONDS).not_done)
        finally:
            self._functions.unlink(missing_ok=True)
            if busy or _is_useless(self._executor):
                with cut_short():
                    self._executor.shutdown(wait=True, kill_workers=True)
            else:
                _idle.append((os.getpid(), self.processes, self._executor, time.monotonic()))


_idle: list[tuple[int, int, ProcessPoolExecutor, float]] = []
"""Idle workers, which end by themselves after a while: process they belong to, number, executor, time."""


def cores() -> int:
    """Number of cores that this process may use."""
    return int(joblib.cpu_count())


def _borrowed(processes: int) -> ProcessPoolExecutor:
    for entry in reversed(_idle):
        if entry[:2] == (os.getpid(), processes):
            with suppress(ValueError):  # another thread was faster
                _idle.remove(entry)
                if not _is_useless(entry[2]) and time.monotonic() - entry[3] < _FRESH_SECONDS:
                    return entry[2]
    # A worker that never got work must end with its parent, too: it follows from its first moment.
    return ProcessPoolExecutor(
        processes, timeout=_IDLE_SECONDS, env=_ONE_THREAD, initializer=follow, initargs=(os.getpid(),)
    )


def _is_useless(executor: ProcessPoolExecutor) -> bool:
    return bool(executor._flags.broken or executor._flags.shutdown)


def _piece(
    functions: str, rows: Mapping[str, Any], indices: range, errstate: Mapping[str, Any]
) -> Piece | SbiModelsError:
    """In a worker: compute blocks, or return the error that stops all work."""
    try:
        table = replace(loaded(functions, Path(functions).read_bytes), **rows)
        began = time.perf_counter()
        with np.errstate(**errstate):
            return Piece([computed(table, index) for index in indices], time.perf_counter() - began)
    except SbiModelsError as error:
        return error
