"""The process of a run: the settings of Prefect and MLflow, signals, imports and its end."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

from sbi_models.empty_databases import refuse_folder
from sbi_models.errors import TrackingError
from sbi_models.pipeline.folders import work_folder
from sbi_models.tracking.mlflow_environment import DEFAULTS as MLFLOW_DEFAULTS
from sbi_models.tracking.mlflow_environment import environment_defaults


def _prefect_defaults() -> dict[str, str]:
    """Prefect's environment variables for runs of this package.

    The settings of the recorder keep task runs from being lost when the server of a run stops; the long
    start-up time is for slow machines. Prefect's log lines go to its database, not to the console.
    """
    return {
        "DO_NOT_TRACK": "true",
        "PREFECT_HOME": str(work_folder() / "prefect"),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(work_folder() / "results"),
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
        # Prefect cuts it to whole seconds, and 0 is a busy loop
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }


def program_environment() -> AbstractContextManager[None]:
    """Set the environment variables of Prefect and MLflow for a program of this package.

    Those that the user has set stay as they are.

    Prefect and MLflow read them when they are first imported, and child processes inherit them.
    """
    return environment_defaults(_prefect_defaults() | MLFLOW_DEFAULTS)


@contextmanager
def run_settings() -> Iterator[None]:
    """Use the settings of runs for the time of one run, in a program of this package or in a user's process.

    In a user's process Prefect is imported with the user's settings first, and has these on top meanwhile.

    Raises:
        TrackingError: if the folders cannot be made, or Prefect's database could not be in them.
    """
    if any(name not in os.environ for name in _prefect_defaults()):
        import prefect  # noqa: F401, PLC0415 - in a program it is imported while its server starts
    with program_environment():
        make_folders()
        if "prefect" not in sys.modules:
            yield
            return
        from prefect.settings import (  # noqa: PLC0415 - takes a second
            PREFECT_HOME,
            PREFECT_RESULTS_DEFAULT_SERIALIZER,
            PREFECT_RESULTS_LOCAL_STORAGE_PATH,
            temporary_settings,
        )

        settings = (PREFECT_HOME, PREFECT_RESULTS_LOCAL_STORAGE_PATH, PREFECT_RESULTS_DEFAULT_SERIALIZER)
        with (
            temporary_settings(set_defaults={setting: os.environ[setting.name] for setting in settings}),
            _quiet_console(),
        ):
            yield


@contextmanager
def _quiet_console() -> Iterator[None]:
    """Keep Prefect's own log lines off the console; they go to its database."""
    from prefect.logging.handlers import PrefectConsoleHandler  # noqa: PLC0415 - takes a second

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] != "prefect" or record.levelno >= logging.CRITICAL

    loggers = (logging.getLogger(), logging.getLogger("prefect"))
    handlers = {
        handler
        for logger in loggers
        for handler in logger.handlers
        if isinstance(handler, PrefectConsoleHandler)
    }
    for handler in handlers:
        handler.addFilter(is_of_others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_of_others)


def make_folders() -> None:
    """Create the folders of Prefect, which does not make parents of its home.

    Raises:
        TrackingError: if they cannot be made, or Prefect's database could not be in them.
    """
    for name in ("PREFECT_HOME", "PREFECT_RESULTS_LOCAL_STORAGE_PATH"):
        folder = Path(os.environ.get(name) or _prefect_defaults()[name]).expanduser()
        refuse_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrackingError(
                f"Expected to be able to write to {folder}: {error}. Run in a folder where mlruns/ "
                "can be made."
            ) from None


@contextmanager
def quick_imports(*, freeze: bool = False) -> Iterator[None]:
    """Import large packages without garbage collection, which takes a third of the time. For programs only.

    Collection goes on afterwards if it was on before.

    Args:
        freeze: whether objects that exist at the end are exempt from later collections, which also shortens
            the end of the process.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if collecting:
            gc.enable()


_PATIENCE = 60.0
"""Seconds for which a program that has done its work waits for threads that go on."""

_exit_codes: list[int] = []


def end_in_time(code: int, seconds: float = _PATIENCE) -> None:
    """Let this program, which is about to end with a code, end so many seconds later at the latest.

    Python waits for ever for threads that functions of a user have left, though the answer was given.
    """
    if not _exit_codes:
        threading._register_atexit(_limit_the_end, seconds)  # type: ignore[attr-defined]
    _exit_codes.append(code)


def _limit_the_end(seconds: float) -> None:
    def end() -> None:
        time.sleep(seconds)
        names = [
            thread.name
            for thread in threading.enumerate()
            if not thread.daemon and thread is not threading.main_thread()
        ]
        os.write(2, f"Ended, though threads that were left go on: {', '.join(names)}.\n".encode())
        os._exit(_exit_codes[-1])

    threading.Thread(target=end, daemon=True).start()


_ended_by: list[int] = []
"""Signals that have told this process to end."""


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the program as Ctrl-C does.

    The server is stopped then, and the MLflow run ends as KILLED. A second signal ends it at once: what it
    leaves ends by itself, or is found by the next run. Signals that are ignored, as by nohup, stay so.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        if _ended_by:
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
            os.write(2, f"{show_cursor}\n{STOPPED}\n".encode())
            os._exit(128 + number)
        _ended_by.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    _ended_by.clear()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


STOPPED = "Interrupted. The same command goes on from here."
