"""A Prefect server for the time of one run, where the environment names no other."""

# Prefect takes seconds to import, in which its server can start: it is imported where it is needed.
# ruff: noqa: PLC0415

import atexit
import inspect
import os
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from sbi_models.errors import SbiModelsError, TrackingError
from sbi_models.pipeline.folders import work_folder
from sbi_models.pipeline.prefect_server.process import ServerProcess, why_away, without_password
from sbi_models.pipeline.runtime import run_settings

_MODULE = ("sbi_models.pipeline.prefect_server.serve_once",)
_TEMPORARY = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # two seconds for what nothing here uses, and which saving a block does anyway
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}
"""With which Prefect itself starts a temporary server, and what makes that quicker."""


_AGAIN, _LOOK_SECONDS = 3, 0.5
"""Restarts of a server that has ended, and seconds between two looks; Prefect's client tries for a minute."""


class LocalPrefect:
    """Context with a Prefect server: the one of PREFECT_API_URL, or one that lives as long as the context.

    `begin` starts it ahead, so that it gets ready while the caller does something else; `with` waits for it.
    If it is killed meanwhile, it is started again at the same address, with the same database.

    Raises:
        TrackingError: if the server that is named does not answer, or the one that is started does not start;
            and in place of what Prefect raises where the server stops answering meanwhile.
    """

    def __init__(self) -> None:
        self._server: ServerProcess | None = None
        self._settings = ExitStack()
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()

    def begin(self) -> None:
        """Start the server if one is needed and none was started; it ends with this process at the latest.

        To be called inside of `run_settings`, which the server inherits.
        """
        if self._server is not None:
            return
        if url := _url_of_settings():
            refuse_away(url)
            return
        self._server = _started(_free_port())
        atexit.register(self._stop)

    def __enter__(self) -> None:
        self._settings.enter_context(run_settings())
        try:
            self.begin()
            if self._server is None:
                return
            self._server.wait()
        except BaseException as error:
            self._stop(keep_log=isinstance(error, TrackingError))
            self._settings.close()
            raise
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        # Nobody looks for lost runs on this server, and Prefect waits a second at the end of a flow for the
        # thread of its heartbeat.
        self._settings.enter_context(
            temporary_settings({PREFECT_API_URL: self._server.url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *trace: object) -> None:
        url, is_own = _url_of_settings(), self._server is not None
        try:
            self._end()
        finally:
            self._settings.close()
        if (cause := _of_transport(error)) is not None:
            what = "that was started for this run" if is_own else f"at {without_password(str(url))}"
            cure = "" if is_own else "Start it again, or unset PREFECT_API_URL. "
            raise TrackingError(
                f"The Prefect server {what} does not answer any more: {cause}. {cure}Give the same command "
                "again: what was computed is kept."
            ) from None

    def _end(self) -> None:
        if self._server is None:
            return
        from prefect.utilities.asyncutils import run_coro_as_sync

        try:
            if self._server.is_alive():
                run_coro_as_sync(_drain())
        finally:
            self._stop()

    def _watch(self) -> None:
        """Start the server again if it ends before it is told to."""
        for _ in range(_AGAIN):
            while self._server is not None and self._server.is_alive():
                if self._stopping.wait(_LOOK_SECONDS):
                    return
            if self._server is None or self._stopping.is_set():
                return
            self._server = _started(int(self._server.url.rpartition(":")[2].partition("/")[0]))

    def _stop(self, *, keep_log: bool = False) -> None:
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
        if self._server is not None:
            self._server.stop()
            if not keep_log:
                self._server.log.unlink(missing_ok=True)
            self._server = None
            atexit.unregister(self._stop)


def _started(port: int) -> ServerProcess:
    return ServerProcess.start(_MODULE, port, _TEMPORARY, work_folder() / "servers" / f"{os.getpid()}.log")


def refuse_away(url: str) -> None:
    """Raise TrackingError if the server that the settings of Prefect name gives no answer, in a few tries."""
    for wait in (0.5, 1.5, 0.0):
        if (reason := why_away(url)) is None:
            return
        time.sleep(wait)
    raise TrackingError(
        f"Expected a Prefect server at {without_password(url)}, which PREFECT_API_URL or a profile of "
        f"Prefect names, got: {reason}. Start it, or unset PREFECT_API_URL for one that lives as long as "
        "the run."
    )


def _of_transport(error: BaseException | None) -> BaseException | None:
    """The connection error in the chain of causes of an error; None if there is none."""
    if not isinstance(error, Exception) or isinstance(error, SbiModelsError):
        return None
    import httpx

    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, httpx.TransportError):
            return error
        seen.append(error)
        error = error.__cause__ or error.__context__
    return None


def local_prefect() -> LocalPrefect:
    """Use the server that PREFECT_API_URL names, or one that lives as long as this context."""
    return LocalPrefect()


def _url_of_settings() -> str | None:
    """The server that is set, in the environment, a profile, or the settings of an outer context."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    if "prefect" not in sys.modules and not (home / "profiles.toml").exists():
        return None
    from prefect.settings import PREFECT_API_URL

    return str(url) if (url := PREFECT_API_URL.value()) else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _drain() -> None:
    """Send queued events and log lines; else the exit waits for a server that has stopped."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for drain in (APILogWorker.instance().drain, EventsWorker.drain_all):
        pending = drain()
        if inspect.isawaitable(pending):
            await pending
