"""Scheduled flows: runs at the times of a cron line, each in a process of its own."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from zoneinfo import ZoneInfo, available_timezones

import psutil
from filelock import FileLock, Timeout
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from rich.console import Console
from rich.markup import escape

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.flows import FLOWS
from sbi_models.pipeline.folders import project_root, work_folder
from sbi_models.pipeline.prefect_server.for_schedules import lasting_server
from sbi_models.pipeline.prefect_server.process import ServerProcess, without_password
from sbi_models.pipeline.runtime import end_on_signals

_AHEAD = 3
"""Times that are shown."""

_END_SECONDS = 20.0


class _Runner(Runner):
    """Prefect's runner, which SIGTERM ends as Ctrl-C does.

    Prefect's own handler leaves a coroutine that nobody awaits, and a warning.
    """

    def handle_sigterm(self, *arguments: object, **options: object) -> None:
        sys.exit(128 + signal.SIGTERM)


@dataclass(frozen=True)
class Times:
    """Times of a schedule: a cron line of five fields in a time zone of the IANA database."""

    cron: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if self.timezone not in available_timezones():
            near = get_close_matches(self.timezone, available_timezones(), n=3, cutoff=0.5) or [
                "UTC",
                "Europe/Berlin",
            ]
            raise ConfigurationError(
                f"Unknown time zone {self.timezone!r}. Use a name of the IANA database, such as "
                f"{', '.join(near)}."
            )
        expected = (
            "Expected a cron line of five fields (minute, hour, day of month, month, day of week) "
            "such as '0 3 * * *'"
        )
        if len(self.cron.split()) != 5:
            raise ConfigurationError(f"{expected}, got {self.cron!r}.")
        try:
            CronSchedule(cron=self.cron)
        except ValueError as error:
            raise ConfigurationError(f"{expected}, got {self.cron!r}.") from error
        try:
            self.next()
        except ValueError as error:
            raise ConfigurationError(
                f"Expected a cron line with times to come, got {self.cron!r}: {error}."
            ) from error

    def next(self, count: int = _AHEAD) -> list[datetime]:
        """The next times, in the time zone."""
        schedule = CronSchedule(cron=self.cron, timezone=self.timezone)
        return [
            time.astimezone(ZoneInfo(self.timezone))
            for time in asyncio.run(schedule.get_dates(count, start=datetime.now(UTC)))
        ]


def schedule(
    experiment: Experiment, times: Times, *, flow: str = "pipeline", name: str | None = None
) -> None:
    """Run a registered flow on an experiment at these times, until Ctrl-C or SIGTERM.

    Raises:
        ConfigurationError: if there is no such flow, or if it is scheduled in this folder under this name
            already.
        TrackingError: if no Prefect server can be started for it.
    """
    refuse_versions(version("prefect"), version("sqlalchemy"))
    serve(FLOWS.named(flow).flow, experiment, times, name or experiment.name)


def refuse_versions(prefect: str, sqlalchemy: str) -> None:
    """Raise ConfigurationError for the two versions of which Prefect's scheduler never makes a run."""
    old, new = ([int(part) for part in text.split(".")[:2]] for text in (prefect, sqlalchemy))
    if old < [3, 9] and new >= [2, 1]:
        raise ConfigurationError(
            f"Expected Prefect 3.9 or SQLAlchemy 2.0 for schedules, got Prefect {prefect} with SQLAlchemy "
            f'{sqlalchemy}, whose scheduler makes no runs. Give: pip install --upgrade "prefect>=3.9"'
        )


def serve(flow: Flow[..., object], experiment: Experiment, times: Times, name: str) -> None:
    """Serve a flow of an experiment as the deployment `name` until Ctrl-C or SIGTERM.

    The server is that of PREFECT_API_URL, or one of its own.

    Runs are processes whose current folder is this process's; one at a time. When it ends, the deployment is
    paused.
    """
    end_on_signals()
    label = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{flow.name}-{name}")
    with _alone(label), lasting_server(label) as server, _ending_with(server):
        try:
            runner = _Runner(name=name, limit=1, pause_on_shutdown=True)
            runner.add_flow(
                flow.with_options(
                    on_running=[_tell], on_completion=[_tell], on_failure=[_tell], on_crashed=[_tell]
                ),
                name=name,
                schedule=Cron(times.cron, timezone=times.timezone),
                parameters={"experiment": experiment.model_dump(mode="json")},
            )
            _show(flow, name, times, server)
            with suppress(KeyboardInterrupt):
                asyncio.run(runner.start())
        finally:
            _end_children(server)
    _console().print(f"\nStopped: {escape(name)} runs no more. The same command starts it again.")


def _show(flow: Flow[..., object], name: str, times: Times, server: ServerProcess | None) -> None:
    lines = [f"{flow.name} of {name}, at '{times.cron}' ({times.timezone}), in {project_root()}"]
    lines += [
        f"{'next' if number == 0 else '':<8}{time:%a %Y-%m-%d %H:%M %Z}"
        for number, time in enumerate(times.next())
    ]
    lines += [
        f"{'Prefect':<8}{_pages()}"
        + (f"  (its log: {server.log.relative_to(project_root())})" if server is not None else "")
    ]
    lines += ["Ctrl-C stops it."]
    for line in lines:
        _console().print(escape(line))


def _pages() -> str:
    """Where the pages of the server are; without what its address may hold of a password."""
    return without_password(
        str(PREFECT_UI_URL.value() or str(PREFECT_API_URL.value()).removesuffix("/").removesuffix("/api"))
    )


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False)


def _tell(flow: Flow[..., object], flow_run: FlowRun, state: State) -> None:
    """A line on the screen when a scheduled run starts and ends."""
    reason = (
        ""
        if state.is_completed() or state.is_running() or not state.message
        else f": {state.message.splitlines()[0]}"
    )
    now = datetime.now().astimezone()
    _console().print(
        escape(f"[{now:%Y-%m-%d %H:%M:%S}] {flow.name} {flow_run.name} {(state.name or '').lower()}{reason}")
    )


@contextmanager
def _alone(label: str) -> Iterator[None]:
    """Lock a label so that a second schedule of the same name in this folder is refused."""
    folder = work_folder() / "schedules"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{label}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigurationError(
            f"The schedule {label!r} runs in this folder already. Stop it, or give this one a --name."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _ending_with(server: ServerProcess | None) -> Iterator[None]:
    """End this process with code 2 if its server ends before the context.

    Without a server nothing would ever run, and nobody would know.
    """
    if server is None:
        yield
        return
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(1.0):
            if not server.is_alive():
                print(
                    f"Error: The Prefect server of this schedule has ended: see {server.log}. "
                    "Start it again.",
                    file=sys.stderr,
                    flush=True,
                )
                _end_children(server)
                os._exit(2)  # an orderly end would wait for answers of the server

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _end_children(server: ServerProcess | None) -> None:
    """Terminate runs that are left, and kill those that do not end in time."""
    children = [
        child for child in psutil.Process().children() if server is None or child.pid != server.process.pid
    ]
    children = [
        child for child in children if "resource_tracker" not in " ".join(child.cmdline())
    ]  # Python's; ends by itself
    for child in children:
        child.terminate()
    _, alive = psutil.wait_procs(children, timeout=_END_SECONDS)
    for child in alive:
        child.kill()
