"""Time limits for simulator functions: calls in a child process that can be killed.

    parent   seed, rows --> index, attempt -->              kills the child after `seconds` without a message
    child      functions             --> begins 'prior' --> begins 'likelihood' --> outputs

A limit inside of this process would not do: Python can interrupt neither compiled code nor a thread.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from multiprocessing.connection import Connection, Pipe
from typing import Any

import cloudpickle
import numpy as np

from sbi_models.errors import SbiModelsError, SimulationError
from sbi_models.simulators.calls import FunctionFailed, NamedCall
from sbi_models.simulators.pool import loaded, pickled_table, portable
from sbi_models.simulators.table import Table
from sbi_models.types import Array

_START_SECONDS = 600.0
"""Time limit in seconds for importing the modules of the functions."""

_END_SECONDS = 5.0
"""Seconds to wait for the exit code of a child that closed its connection."""


class Isolation:
    """Child processes that call the functions of one simulator, each used by one thread at a time.

    The processes end with this object.

    Args:
        seconds: time that a function may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._of, self._idle = os.getpid(), list[_Child]()
        self._finalizer = weakref.finalize(self, _end_all, self._idle)

    def __reduce__(self) -> tuple[type["Isolation"], tuple[float]]:
        """Pickle without the child processes."""
        return Isolation, (self.seconds,)

    def attempt(self, table: Table, index: int, attempt: int) -> dict[str, Array]:
        """Outputs of `Table.attempt`, computed in a child process.

        Raises:
            FunctionFailed: also if a function takes too long, or its process ends.
            SimulationError: if functions cannot be loaded there.
        """
        if self._of != os.getpid():  # forked: the children are those of another process
            self.__init__(self.seconds)  # type: ignore[misc]
        try:
            child = self._idle.pop()
        except IndexError:
            child = _Child(table)
        try:
            outputs = child.attempt(table, index, attempt, self.seconds)
        except (FunctionFailed, SbiModelsError):
            if child.is_alive:
                self._idle.append(child)
            raise
        except BaseException:
            child.end()
            raise
        self._idle.append(child)
        return outputs


def _end_all(children: "list[_Child]") -> None:
    for child in children:
        child.end()


class _Child:
    """Child process with the functions of a table."""

    def __init__(self, table: Table) -> None:
        functions = pickled_table(replace(table, fixed={}, isolation=None))
        self._here, there = Pipe()
        self._rows: dict[str, Any] = {}
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [
                sys.executable,
                "-c",
                f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()",
                str(there.fileno()),
            ],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        there.close()
        try:
            self._here.send_bytes(functions)
            self._received(_START_SECONDS)
        except (EOFError, OSError, TimeoutError) as error:
            self.end()
            raise SimulationError(
                "A process for the functions, which have a time limit, could not load them: "
                f"{type(error).__name__}. Expected modules that another process can import within ten "
                "minutes; leave out timeout= to call them in this one."
            ) from None
        except BaseException:
            self.end()
            raise

    @property
    def is_alive(self) -> bool:
        """True if the child can compute another attempt."""
        return self.process.poll() is None and not self._here.closed

    def attempt(self, table: Table, index: int, attempt: int, seconds: float) -> dict[str, Array]:
        """Outputs of one attempt; see `Isolation.attempt`."""
        rows = {
            name: getattr(table, name) for name in ("seed", "start", "stop", "fixed", "sets_global_states")
        }
        is_new = any(self._rows.get(name) is not value for name, value in rows.items())
        function, outputs = table.every_call[0].name, dict[str, Array]()
        try:
            self._here.send_bytes(pickle.dumps((rows if is_new else None, index, attempt, np.geterr())))
            self._rows = rows
            while True:
                what, content = self._received(seconds)
                if what == "outputs":
                    return dict(content)
                function, outputs = content
        except TimeoutError:
            self.end()
            cause = f"function {function!r} took longer than the timeout of {seconds:g} s"
            raise FunctionFailed(cause, TimeoutError(cause), outputs) from None
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
            self.end()
            code = self.process.returncode
            how = f"exit code {code}" if code >= 0 else f"signal {-code} ({_signal_name(-code)})"
            cause = f"function {function!r} ended its process with {how}"
            raise FunctionFailed(cause, ChildProcessError(cause), outputs) from None

    def _received(self, seconds: float) -> tuple[str, Any]:
        """Next message of the child; an exception in the child is raised here."""
        if not self._here.poll(seconds):
            raise TimeoutError
        what, content = pickle.loads(self._here.recv_bytes())  # noqa: S301 - from our own process
        if what == "raised":
            raise content
        if what == "failed":
            raise FunctionFailed(*content)
        return what, content

    def end(self) -> None:
        """Kill the child and the processes that it started."""
        if not self._here.closed:
            self._here.close()
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in signal.valid_signals() else "unknown"


@dataclass(frozen=True)
class _ReportingTable(Table):
    """Table that reports each function to the parent before calling it."""

    report: Callable[[str, Any], None] = lambda *_: None

    def begins(self, call: NamedCall, outputs: dict[str, Array]) -> None:
        """Report the function to the parent."""
        self.report("begins", (call.name, outputs))


def serve() -> None:
    """Main loop of the child process: compute attempts until the parent closes the connection."""
    connection, parent = Connection(int(sys.argv[1])), os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def report(what: str, content: Any) -> None:
        plain = what in ("begins", "outputs")  # names and arrays
        connection.send_bytes((pickle if plain else cloudpickle).dumps((what, content)))

    def answer(work: Callable[[], tuple[str, Any]]) -> None:
        try:
            what, content = work()
        except FunctionFailed as failure:
            what, content = "failed", (str(failure), portable(failure.exception), failure.outputs)
        except SbiModelsError as error:
            what, content = "raised", error
        report(what, content)

    table: Table | None = None

    def load() -> tuple[str, Any]:
        nonlocal table
        read = loaded("isolated", connection.recv_bytes, follows=False)
        table = _ReportingTable(
            **{field.name: getattr(read, field.name) for field in fields(Table)}, report=report
        )
        return "loaded", None

    def attempt(rows: dict[str, Any] | None, index: int, number: int, errstate: Any) -> tuple[str, Any]:
        nonlocal table
        assert table is not None
        if rows is not None:
            table = replace(table, **rows)
        with np.errstate(**errstate):
            outputs = table.attempt(index, number)
            return "outputs", table.attempt(index, number) if table.found_more() else outputs

    with suppress(EOFError, BrokenPipeError):
        answer(load)
        while True:
            request = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own process
            answer(lambda request=request: attempt(*request))  # type: ignore[misc]
    os._exit(0)  # whatever threads functions have started


def _end_with(parent: int) -> None:
    """End this process and the processes that it started once the parent is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(os.getpgrp(), signal.SIGKILL)
