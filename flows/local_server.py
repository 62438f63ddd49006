"""A Prefect server for the time of one run, where the environment names no other.

It runs in a session of its own, so that Ctrl-C and the signals of a queue reach the flow alone, which then still has a server to report to.
A flow that is killed outright cannot stop its server; the next run does, by a note of who started which.
"""

import inspect
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
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
    """Prefect's temporary server, started outside the process group of the terminal."""

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        popen = subprocess.Popen
        subprocess.Popen = partial(popen, start_new_session=True)  # type: ignore[misc, assignment]
        try:
            return super()._run_uvicorn_command()
        finally:
            subprocess.Popen = popen  # type: ignore[misc]


@contextmanager
def local_prefect() -> Iterator[None]:
    """Use the server that PREFECT_API_URL names, or one that lives as long as this context."""
    if PREFECT_API_URL.value():
        yield
        return
    notes = work_folder() / "servers"
    stop_orphans(notes)
    server = _OwnSession()
    server.start(timeout=_START_SECONDS)
    note = write_note(notes, server.server_process)
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            try:
                yield
            finally:
                run_coro_as_sync(_drain())
    finally:
        server.stop()
        note.unlink(missing_ok=True)


async def _drain() -> None:
    """Send what is queued before the server stops; without this the exit waits for answers that do not come."""
    for drain in (APILogWorker.instance().drain, EventsWorker.drain_all):
        pending = drain()
        if inspect.isawaitable(pending):
            await pending


def write_note(notes: Path, process: "subprocess.Popen[Any] | None") -> Path:
    """A note of a server that this process has started, by which the next process finds it if this one is killed."""
    assert process is not None, "the server was started"
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
