"""A Prefect server for the time of one run, where the environment names no other.

It runs in a session of its own, so that Ctrl-C and the signals of a queue reach the flow alone, which then still has a server to report to.
A flow that is killed outright cannot stop its server; the next run does, by a note of who started which.
"""

import inspect
import json
import subprocess
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.asyncutils import run_coro_as_sync

from flows.runtime import work_folder

_START_SECONDS = 120


class _OwnSession(SubprocessASGIServer):
    """Prefect's temporary server, started outside the process group of the terminal, with a note of who started it."""

    notes: list[Path]

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        popen = subprocess.Popen
        subprocess.Popen = partial(popen, start_new_session=True)  # type: ignore[misc, assignment]
        try:
            process = super()._run_uvicorn_command()
        finally:
            subprocess.Popen = popen  # type: ignore[misc]
        self.notes.append(write_note(work_folder() / "servers", process))
        return process


class LocalPrefect:
    """A context in which there is a Prefect server: that which PREFECT_API_URL names, or one that lives as long as the context.

    `begin` starts it ahead, so that it gets ready while the caller does something else; `with` waits for it.
    """

    def __init__(self) -> None:
        self._server: _OwnSession | None = None
        self._thread: Thread | None = None
        self._error: BaseException | None = None
        self._settings: AbstractContextManager[Any] = nullcontext()

    def begin(self) -> None:
        """Start the server in the background if one is needed; it ends with this process at the latest."""
        if PREFECT_API_URL.value() or self._thread is not None:
            return
        stop_orphans(work_folder() / "servers")
        self._server = _OwnSession()
        self._server.notes = []
        self._thread = Thread(target=copy_context().run, args=(self._start, self._server), daemon=True)
        self._thread.start()

    def _start(self, server: _OwnSession) -> None:
        try:
            server.start(timeout=_START_SECONDS)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error

    def __enter__(self) -> None:
        self.begin()
        if self._server is None or self._thread is None:
            return
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._settings = temporary_settings({PREFECT_API_URL: self._server.api_url})
        self._settings.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._server is None:
            return
        try:
            run_coro_as_sync(_drain())
        finally:
            self._settings.__exit__(None, None, None)
            self._server.stop()
            for note in self._server.notes:
                note.unlink(missing_ok=True)


def local_prefect() -> LocalPrefect:
    """Use the server that PREFECT_API_URL names, or one that lives as long as this context."""
    return LocalPrefect()


async def _drain() -> None:
    """Send what is queued before the server stops; without this the exit waits for answers that do not come."""
    for drain in (APILogWorker.instance().drain, EventsWorker.drain_all):
        pending = drain()
        if inspect.isawaitable(pending):
            await pending


def write_note(notes: Path, process: "subprocess.Popen[Any]") -> Path:
    """A note of a server that this process has started, by which the next process finds it if this one is killed."""
    notes.mkdir(parents=True, exist_ok=True)
    owner = psutil.Process()
    note = notes / f"{process.pid}.json"
    started = psutil.Process(process.pid).create_time()
    note.write_text(json.dumps({"server": [process.pid, started], "owner": [owner.pid, owner.create_time()]}))
    return note


def stop_orphans(notes: Path) -> int:
    """Stop the servers whose flows were killed; returns how many."""
    stopped = 0
    for note in notes.glob("*.json"):
        content = json.loads(note.read_text())
        if _alive(*content["owner"]) is not None:
            continue
        server = _alive(*content["server"])
        if server is not None:
            server.terminate()
            stopped += 1
        note.unlink(missing_ok=True)
    return stopped


def _alive(pid: int, started: float) -> psutil.Process | None:
    """The process of this number, if it is the one that was started then."""
    try:
        process = psutil.Process(pid)
        return process if abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
