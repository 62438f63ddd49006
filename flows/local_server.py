"""A Prefect server for the time of one run, where the environment names no other."""

# Prefect takes seconds to import, in which its server can start: it is imported where it is needed.
# ruff: noqa: PLC0415

import atexit
import inspect
import os
import socket
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from flows.runtime import work_folder
from flows.server_process import ServerProcess

_COMMAND = ("-m", "flows.temporary_server")
_TEMPORARY = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # two seconds for what nothing here uses, and which saving a block does anyway
}
"""With which Prefect itself starts a temporary server, and what makes that quicker."""


class LocalPrefect:
    """A context in which there is a Prefect server: that which PREFECT_API_URL names, or one that lives as long as the context.

    `begin` starts it ahead, so that it gets ready while the caller does something else; `with` waits for it.
    """

    def __init__(self) -> None:
        self._server: ServerProcess | None = None
        self._settings: AbstractContextManager[Any] = nullcontext()

    def begin(self) -> None:
        """Start the server if one is needed and none was started; it ends with this process at the latest."""
        if self._server is None and not _url_of_settings():
            log = work_folder() / "servers" / f"{os.getpid()}.log"
            self._server = ServerProcess.start([sys.executable, *_COMMAND], _free_port(), _TEMPORARY, log)
            atexit.register(self._stop)

    def __enter__(self) -> None:
        self.begin()
        if self._server is None:
            return
        self._server.wait()
        from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        # Nobody looks for lost runs on this server, and Prefect waits a second at the end of a flow for the thread of its heartbeat.
        self._settings = temporary_settings({PREFECT_API_URL: self._server.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        self._settings.__enter__()

    def __exit__(self, *error: object) -> None:
        if self._server is None:
            return
        from prefect.utilities.asyncutils import run_coro_as_sync

        try:
            run_coro_as_sync(_drain())
        finally:
            self._settings.__exit__(None, None, None)
            self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server.log.unlink(missing_ok=True)
            self._server = None
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
