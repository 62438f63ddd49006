"""A Prefect server for the time of one run, where the environment names no other.

It runs in a session of its own, so that Ctrl-C and the signals of a queue reach the flow alone, which then still has a server to report to.
A flow that is killed outright cannot stop its server; the next run does, by a note of who started which.
"""

# Prefect takes seconds to import, in which its server can start: it is imported where it is needed.
# ruff: noqa: PLC0415

import atexit
import inspect
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from flows.runtime import work_folder
from sbi_models.errors import TrackingError

_START_SECONDS, _STOP_SECONDS = 120.0, 5.0
_TEMPORARY = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""With which Prefect itself starts a temporary server."""


class LocalPrefect:
    """A context in which there is a Prefect server: that which PREFECT_API_URL names, or one that lives as long as the context.

    `begin` starts it ahead, so that it gets ready while the caller does something else; `with` waits for it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""
        self._note: Path | None = None
        self._log: Path | None = None
        self._settings: AbstractContextManager[Any] = nullcontext()

    def begin(self) -> None:
        """Start the server if one is needed and none was started; it ends with this process at the latest."""
        if self._process is not None or _url_of_settings():
            return
        notes = work_folder() / "servers"
        notes.mkdir(parents=True, exist_ok=True)
        stop_orphans(notes)
        port = _free_port()
        self._url, self._log = f"http://127.0.0.1:{port}/api", notes / f"{os.getpid()}.log"
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--lifespan", "on"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, env=os.environ | _TEMPORARY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._note = write_note(notes, self._process)
        atexit.register(self._stop)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self._log.read_text(errors="replace").strip().splitlines() if self._log else []) or ["nothing"]
                raise TrackingError(f"Expected Prefect's temporary server to start, but it did not; it said: {said[-1]}")
            try:
                with urlopen(f"{self._url}/health", timeout=5):  # noqa: S310 - our own address
                    return
            except (URLError, OSError):
                time.sleep(0.05)

    def __enter__(self) -> None:
        self.begin()
        if self._process is None:
            return
        self._wait(self._process)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        self._settings = temporary_settings({PREFECT_API_URL: self._url})
        self._settings.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._process is None:
            return
        from prefect.utilities.asyncutils import run_coro_as_sync

        try:
            run_coro_as_sync(_drain())
        finally:
            self._settings.__exit__(None, None, None)
            self._stop()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for file in (self._note, self._log):
            if file is not None:
                file.unlink(missing_ok=True)
        self._process = None
        atexit.unregister(self._stop)


def local_prefect() -> LocalPrefect:
    """Use the server that PREFECT_API_URL names, or one that lives as long as this context."""
    return LocalPrefect()


def _url_of_settings() -> str | None:
    """The server that is set, in the environment, a profile, or the settings of an outer context."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    if "prefect" not in sys.modules and not (Path(os.environ["PREFECT_HOME"]) / "profiles.toml").exists():
        return None
    from prefect.settings import PREFECT_API_URL

    return str(url) if (url := PREFECT_API_URL.value()) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _drain() -> None:
    """Send what is queued before the server stops; without this the exit waits for answers that do not come."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

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
