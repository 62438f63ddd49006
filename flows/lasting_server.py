"""A Prefect server that can schedule, as a child of the process that schedules; one that a kill left behind is stopped by the next."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.local_server import stop_orphans, write_note
from flows.runtime import work_folder
from sbi_models.errors import TrackingError

_USUAL_PORT = 4200
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class LastingServer:
    """A server that runs: its process, and where its log is."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None


@contextmanager
def lasting_server(label: str) -> Iterator[LastingServer | None]:
    """The server that PREFECT_API_URL names (None), or one for the time of this context, with a database of its own for this label.

    Prefect's temporary server never starts scheduled runs. This one has a session of its own, so that Ctrl-C does not reach it before
    the deployment is paused.
    """
    if PREFECT_API_URL.value():
        yield None
        return
    folder, notes = work_folder() / "schedules", work_folder() / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    stop_orphans(notes)
    port = _free_port()
    server = LastingServer(_started(port, folder / f"{label}.db", folder / f"{label}.log"), folder / f"{label}.log")
    note = write_note(notes, server.process)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/health", server)
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
            yield server
    finally:
        _stop(server.process)
        note.unlink(missing_ok=True)


def _started(port: int, database: Path, log: Path) -> "subprocess.Popen[Any]":
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    environment = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}"} | os.environ
    environment |= {"PREFECT_SERVER_LOGGING_LEVEL": "WARNING", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING"}
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)  # noqa: S603


def _free_port() -> int:
    """Prefect's usual port if nobody has it, else any."""
    for port in (_USUAL_PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TrackingError("Expected a free port on 127.0.0.1 for a Prefect server, got none. Set PREFECT_API_URL to a server that runs.")


def _wait_for(url: str, server: LastingServer) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        if not server.is_alive() or time.monotonic() > deadline:
            raise TrackingError(f"Expected a Prefect server at {url}, got none within {_START_SECONDS:.0f} s: see {server.log}.")
        try:
            with urlopen(url, timeout=5):  # noqa: S310 - our own address
                return
        except (URLError, OSError):
            time.sleep(0.2)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
