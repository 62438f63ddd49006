"""Simulation blocks in worker processes, by joblib's loky, which takes closures and lambdas as well.

Rows are a function of seed and row alone, so that it does not matter which worker computes which; joblib
measures how long blocks take and sends them in chunks of a fifth of a second to two seconds.
"""

import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from uuid import uuid4

import cloudpickle
import joblib
import numpy as np

from sbi_models.errors import ConfigurationError, SbiModelsError, SimulationError
from sbi_models.simulators.blocks import Block, difference
from sbi_models.simulators.generators import held_generators
from sbi_models.simulators.table import Table, not_repeated
from sbi_models.types import Array

WORKER_DIED = (
    "A worker process died while it simulated: a function called os._exit, crashed in compiled code, or "
    "ran out of memory. Find the row with {here}, or use fewer workers if memory is short."
)

_loaded: tuple[str, Table | None] = ("", None)
"""In a worker: token and table of the last unpickling."""


def in_processes(table: Table, workers: int, *, twice: bool) -> Generator[Block, None, None]:
    """Iterate over the blocks of a table in the order in which worker processes finish them.

    Closing the iterator, or Ctrl-C, kills the workers.

    Args:
        table: table with the blocks.
        workers: number of workers, -1 for one per core.
        twice: whether the worker that has the first block computes it twice, which must be the same.

    Raises:
        ConfigurationError: if a function cannot be sent to another process; no worker is started then.
        SimulationError: if a worker dies, or the first block is not the same twice.
    """
    # Joblib sends large arrays through a file, once, and small ones with each chunk.
    pickled, token = np.frombuffer(pickled_table(table), dtype=np.uint8), uuid4().hex
    workers = joblib.cpu_count() if workers == -1 else workers
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = joblib.Parallel(n_jobs=min(workers, len(table.indices)), return_as="generator_unordered")
        results = parallel(
            joblib.delayed(_work)(pickled, token, k, twice and k == table.indices[0]) for k in table.indices
        )
    try:
        for result in results:
            if isinstance(result, SbiModelsError):
                raise result
            yield result
    except BrokenProcessPool as error:
        raise SimulationError(WORKER_DIED.format(here="workers=None")) from error
    finally:
        with warnings.catch_warnings(), cut_short():
            warnings.simplefilter("ignore")  # joblib warns of work that is cut short, which is meant
            results.close()


@contextmanager
def cut_short() -> Iterator[None]:
    """Silence the KeyError of loky's executor thread that follows when its workers are killed."""
    hook = threading.excepthook

    def but_for_that(error: threading.ExceptHookArgs) -> None:
        if not (error.exc_type is KeyError and type(error.thread).__name__ == "_ExecutorManagerThread"):
            hook(error)

    threading.excepthook = but_for_that
    try:
        yield
    finally:
        threading.excepthook = hook


def _work(pickled: Array, token: str, index: int, twice: bool) -> Block | SbiModelsError:
    """In a worker: compute one block, or return the error that stops all work."""
    try:
        table = loaded(token, pickled.tobytes)
        block = computed(table, index)
        if (
            twice
            and block.complete
            and (what := not_repeated(table, index, difference([table.block(index)], [block])))
        ):
            return SimulationError(f"Expected simulations that are the same whoever computes them. {what}")
    except SbiModelsError as error:
        return error
    return block


def loaded(token: str, pickled: Callable[[], bytes], *, follows: bool = True) -> Table:
    """In a worker: the table of a token, unpickled once.

    The worker ends with the process that started it, unless `follows` is False.
    """
    global _loaded  # noqa: PLW0603 - the memory of a worker
    if _loaded[0] != token or _loaded[1] is None:
        if not _loaded[0] and follows:
            follow(os.getppid())
        try:
            table, held = cloudpickle.loads(pickled())
        except Exception as error:  # noqa: BLE001 - whatever a user's module does when it is imported
            raise SimulationError(
                f"A worker process could not load the functions: {type(error).__name__}: {error}. "
                "Expected modules that it can import; install yours, or define the functions in the script."
            ) from None
        if _kinds(table) != held:
            raise SimulationError(
                "Expected the generators that functions share to be the same in a worker process, got "
                f"{len(_kinds(table))} in place of {len(held)}. Draw from the argument rng alone, or use "
                "workers=None."
            )
        _loaded = (token, table)
    assert _loaded[1] is not None
    return _loaded[1]


def _kinds(table: Table) -> list[str]:
    """Type names of the generators that functions hold, in order."""
    return [type(generator).__name__ for generator in table.randomness.held]


def computed(table: Table, index: int) -> Block:
    """In a worker: compute a block with an exception that can be pickled."""
    block = table.block(index)
    if table.found_more():
        block = table.block(index)
    if block.exception is not None:
        block.exception = portable(block.exception)
    return block


def follow(parent: int) -> None:
    """End this worker when the process that started it is gone, even if that was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def portable(exception: BaseException) -> BaseException:
    """The exception with the worker's traceback as a note.

    An exception that cannot be pickled becomes a RuntimeError of the same text.
    """
    note = "In a worker process:\n" + "".join(traceback.format_exception(exception))
    with suppress(Exception):
        exception.add_note(note)
        copy = cloudpickle.loads(cloudpickle.dumps(exception))
        if type(copy) is type(exception):
            return exception
    plain = RuntimeError(f"{type(exception).__name__}: {exception}")
    plain.add_note(note)
    return plain


def pickled_table(table: Table) -> bytes:
    """Pickle a table with its functions for a worker; raises ConfigurationError if that is impossible.

    Where functions hold generators, those of importable modules travel as they are here, too, like lambdas
    and closures always do: all then have the generators in common that they have here.
    """
    whole = (table, _kinds(table))
    if whole[1]:
        with suppress(Exception), _by_value(table):
            return bytes(cloudpickle.dumps(whole))
    for name, part in [*((call.name, call) for call in table.every_call), ("the simulator", whole)]:
        try:
            pickled = cloudpickle.dumps(part)
        except Exception as error:
            raise ConfigurationError(
                f"Expected functions that can be sent to worker processes, but {name!r} cannot be pickled: "
                f"{error}. Open files, locks and connections inside the function, or use workers=None."
            ) from error
    return bytes(pickled)


@contextmanager
def _by_value(table: Table) -> Iterator[None]:
    """Context manager that pickles the modules which define the functions by value."""
    names: set[str] = set()
    held_generators((call.function for call in table.every_call), names)
    known = cloudpickle.list_registry_pickle_by_value()
    modules = [sys.modules[name] for name in sorted(names - known - {"__main__"}) if name in sys.modules]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
