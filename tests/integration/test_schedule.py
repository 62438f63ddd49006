"""Scheduled runs: on a server of their own, each in a process of its own, and nothing is left when the
schedule ends."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from processes import environment_without, stop

from sbi_models.tracking import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

EVERY_MINUTE, NEVER = "* * * * *", "0 0 29 2 *"


class Schedule:
    """A schedule that runs in a folder, as a process with its screen and errors in files there."""

    def __init__(self, folder: Path, cron: str, changes: dict[str, Any]) -> None:
        self.folder = folder
        command = [
            sys.executable,
            str(Path(__file__).with_name("small_schedule.py")),
            cron,
            json.dumps(changes),
        ]
        with (folder / "screen.txt").open("wb") as screen, (folder / "errors.txt").open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment_without(),
                stdout=screen,
                stderr=errors,
                start_new_session=True,
            )
        self.wait_for(lambda: "Ctrl-C stops it" in self.screen, 120)
        (self.server,) = re.findall(r"Prefect +(http://\S+)", self.screen)

    @property
    def screen(self) -> str:
        return (self.folder / "screen.txt").read_text()

    @property
    def errors(self) -> str:
        return (self.folder / "errors.txt").read_text()

    def wait_for(self, happened: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.screen + self.errors
            assert time.monotonic() < deadline, self.screen + self.errors
            time.sleep(0.1)

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        answer = requests.post(f"{self.server}/api/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def runs(self, state: str) -> list[dict[str, Any]]:
        """Runs of the schedule in a state; the flows that they spread work in are parts of them."""
        chosen = {"state": {"type": {"any_": [state]}}, "parent_task_run_id": {"is_null_": True}}
        return self.ask("flow_runs/filter", {"flow_runs": chosen})

    def run_now(self) -> None:
        """Ask for a run without waiting for its time."""
        (deployment,) = self.ask("deployments/filter", {})
        self.ask(f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})

    def interrupt(self) -> float:
        """Ctrl-C, as a terminal sends it; returns the seconds that the end took."""
        started = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=60)
        return time.monotonic() - started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Schedule]]:
    """Starts schedules in the test's folder; what is left of them is killed."""
    started: list[Schedule] = []

    def start(cron: str, **changes: Any) -> Schedule:
        started.append(Schedule(tmp_path, cron, changes))
        return started[-1]

    yield start
    for schedule in started:
        stop(schedule.process)
    for process in left_in(tmp_path):
        process.kill()


def left_in(folder: Path) -> list[psutil.Process]:
    """The processes that run in a folder, and still do so after some seconds."""
    found = _in(folder)
    for _ in range(50):
        if not found:
            break
        time.sleep(0.1)
        found = _in(folder)
    return found


def _in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _active_schedules(folder: Path) -> list[tuple[int, int]]:
    """For each deployment, whether it is paused and whether its schedule is active, from the database of a
    server that has ended."""
    (database,) = folder.rglob("pipeline-michelson.db")
    with closing(sqlite3.connect(database)) as connection:
        query = (
            "SELECT d.paused, s.active FROM deployment d JOIN deployment_schedule s ON s.deployment_id = d.id"
        )
        return connection.execute(query).fetchall()


def test_a_one_minute_cron_runs_twice(start: Callable[..., Schedule], tmp_path: Path) -> None:
    """Two runs of a one-minute cron are COMPLETED, in processes of their own whose folder is the project's;
    the second uses the work of the first. Ctrl-C then ends it cleanly within seconds: the deployment is
    paused and no process is left."""
    schedule = start(EVERY_MINUTE)
    assert len(re.findall(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", schedule.screen)) == 3
    schedule.wait_for(lambda: len(schedule.runs("COMPLETED")) >= 2, 400)
    runs = schedule.runs("COMPLETED")
    planned = sorted(run["expected_start_time"] for run in runs)
    print(f"\nplanned for {planned}, started {sorted(run['start_time'] for run in runs)}")
    assert all(re.search(r":00(\.0+)?(Z|\+00:00)$", time) for time in planned)
    assert not schedule.runs("FAILED") + schedule.runs("CRASHED")
    schedule.wait_for(lambda: schedule.screen.count("completed") >= 2, 10)
    seconds = schedule.interrupt()
    print(f"Ctrl-C took {seconds:.1f} s\n{schedule.screen}")
    assert schedule.process.returncode in {0, 130}
    assert seconds < 60  # on a machine that may be busy
    assert "Traceback" not in schedule.screen + schedule.errors
    assert schedule.screen.count("reused, finished") >= 2
    assert not left_in(tmp_path)
    ((paused, active),) = _active_schedules(tmp_path)
    assert paused or not active
    client = open_store(tmp_path).client
    tracked = client.search_runs([client.get_experiment_by_name("michelson").experiment_id])
    assert [run.info.status for run in tracked].count("FINISHED") >= 2
    assert len({run.data.tags["sbi_models.pid"] for run in tracked}) == len(tracked)


def test_interrupting_a_training_leaves_no_process(start: Callable[..., Schedule], tmp_path: Path) -> None:
    """Ctrl-C in the middle of a scheduled run ends it too, at once: its MLflow run is KILLED, so that the
    next one goes on from there."""
    schedule = start(NEVER, train={"epochs": 2000})
    schedule.run_now()
    schedule.wait_for(lambda: list(tmp_path.rglob("*.resume.ckpt")), 120)
    seconds = schedule.interrupt()
    print(f"\nCtrl-C took {seconds:.1f} s\n{schedule.screen}{schedule.errors}")
    assert schedule.process.returncode in {0, 130}
    assert seconds < 60  # the run of the other process ends first, on a machine that may be busy
    assert "Traceback" not in schedule.screen + schedule.errors
    assert not left_in(tmp_path)
    client = open_store(tmp_path).client
    (run,) = client.search_runs([client.get_experiment_by_name("michelson").experiment_id])
    assert run.info.status == "KILLED"


def test_a_killed_schedule_leaves_no_server_behind(start: Callable[..., Schedule], tmp_path: Path) -> None:
    """The server of a schedule that got SIGKILL ends by itself; the next start works, and SIGTERM then ends
    it all."""
    killed = start(NEVER)
    servers = [process for process in _in(tmp_path) if process.pid != killed.process.pid]
    assert servers
    killed.process.kill()
    killed.process.wait()
    _, alive = psutil.wait_procs(servers, timeout=30)
    assert not alive
    schedule = start(NEVER)
    time.sleep(3)  # until it polls
    schedule.process.terminate()
    schedule.process.wait(timeout=20)
    assert schedule.process.returncode in {0, 143}
    assert "Traceback" not in schedule.screen + schedule.errors
    assert not left_in(tmp_path)
    ((paused, active),) = _active_schedules(tmp_path)
    assert paused or not active


def test_a_schedule_whose_server_ends_says_so(start: Callable[..., Schedule], tmp_path: Path) -> None:
    """Without a server nothing would ever run: the schedule ends with one line and code 2, and names the
    server's log."""
    schedule = start(NEVER)
    time.sleep(3)  # until it polls
    for process in _in(tmp_path):
        if process.pid != schedule.process.pid:
            process.kill()
    schedule.process.wait(timeout=60)
    print(schedule.screen, schedule.errors)
    assert schedule.process.returncode == 2
    assert "The server of this schedule has ended" in schedule.errors
    assert len(schedule.errors.strip().splitlines()) == 1
    assert "pipeline-michelson.log" in schedule.errors
