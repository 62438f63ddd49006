"""A Prefect server that can schedule, as a child of the process that schedules."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.settings import PREFECT_API_URL, temporary_settings

from sbi_models.errors import TrackingError
from sbi_models.pipeline.folders import work_folder
from sbi_models.pipeline.prefect_server.for_one_run import refuse_away
from sbi_models.pipeline.prefect_server.process import ServerProcess
from sbi_models.pipeline.runtime import run_settings

_USUAL_PORT = 4200
_QUIET = {"PREFECT_SERVER_LOGGING_LEVEL": "WARNING", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING"}


@contextmanager
def lasting_server(label: str) -> Iterator[ServerProcess | None]:
    """The server of PREFECT_API_URL (None), or a scheduling server for the time of this context.

    Its database belongs to the label.

    Prefect's temporary server never starts scheduled runs. This one has a session of its own, so that Ctrl-C
    does not reach it before the deployment is paused.
    """
    with run_settings():
        if url := PREFECT_API_URL.value():
            refuse_away(url)
            yield None
            return
        folder = work_folder() / "schedules"
        database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / f'{label}.db'}"}
        server = ServerProcess.start(
            ["prefect", "server", "start"],
            _free_port(),
            database | os.environ | _QUIET,
            folder / f"{label}.log",
        )
        try:
            server.wait()
            with temporary_settings({PREFECT_API_URL: server.url}):
                yield server
        finally:
            server.stop()


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
    raise TrackingError(
        "Expected a free port on 127.0.0.1 for a Prefect server, got none. Set PREFECT_API_URL to "
        "a server that runs."
    )
