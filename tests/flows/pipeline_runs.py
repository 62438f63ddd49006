"""Pipeline runs in processes of their own: as users start them, or forked, without the time of imports."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from forked_programs import plain_environment, prefect_home, start_forked

from sbi_models.pipeline.prefect_server.process import ServerProcess


@dataclass
class Finished:
    """What a pipeline process left behind."""

    root: Path
    result: dict[str, Any]
    screen: str
    errors: str


@dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str


@cache
def shared_server() -> ServerProcess:
    """A Prefect server for the pipelines of this process, as a user has one beside all of his; its start
    costs more than a pipeline.

    It is started when it is first asked for, and conftest.py stops it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "sbi_models.pipeline.prefect_server.serve_once",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    home = prefect_home()
    with (log := home / "log.txt").open("wb") as output:
        own_home = plain_environment() | {"PREFECT_HOME": str(home)}
        process = subprocess.Popen(command, cwd=home, env=own_home, stdout=output, stderr=output)
    server = ServerProcess(process, f"http://127.0.0.1:{port}/api", log)
    server.wait()
    return server


def stop_shared_server() -> None:
    """Stop it, if there is one."""
    if shared_server.cache_info().currsize:
        shared_server().stop()


def start_pipeline(
    root: Path, *settings: Any, label: str = "", fresh: bool = False
) -> "subprocess.Popen[bytes]":
    """Start a small pipeline in a folder as users do, or several in a row, each with its settings.

    What it prints goes to files there, whose names start with the label. It starts a Prefect server of its
    own. With fresh, the user has no empty databases of earlier folders.
    """
    environment = plain_environment() | ({"XDG_CACHE_HOME": str(root / "cache")} if fresh else {})
    command = [sys.executable, str(Path(__file__).with_name("small_run.py")), *_words(settings)]
    with (
        (root / f"{label}screen.txt").open("wb") as screen,
        (root / f"{label}errors.txt").open("wb") as errors,
    ):
        return subprocess.Popen(
            command, cwd=root, env=environment, stdout=screen, stderr=errors, start_new_session=True
        )


def _words(settings: Sequence[Any]) -> list[str]:
    return [json.dumps(each) for each in settings or [{}]]


def _start_forked(root: Path, script: str, settings: Sequence[Any], **environment: str) -> BaseProcess:
    file = Path(__file__).with_name(script)
    return start_forked(file, _words(settings), folder=root, **environment)


def run_pipeline(
    root: Path, settings: dict[str, Any] | None = None, *, fresh: bool = False, shared: bool = False
) -> Finished:
    """Run a small pipeline in a folder to its end."""
    (finished,) = run_pipelines(root, settings or {}, fresh=fresh, shared=shared)
    return finished


def run_pipelines(
    root: Path, *settings: dict[str, Any], fresh: bool = False, shared: bool = False
) -> list[Finished]:
    """Run small pipelines in a folder, one after another in one process; the screen of all of them is that of
    each.

    Args:
        root: the folder.
        settings: settings of each pipeline, where they are not those of the small experiment.
        fresh: whether the user has no empty databases of earlier folders.
        shared: whether it is a forked process that reports to the shared server, and not one as users start
            it, with a server of its own.
    """
    if shared:
        process = _start_forked(root, "small_run.py", settings, PREFECT_API_URL=shared_server().url)
        screen, errors = _end_forked(root, process)
    else:
        screen, errors = _end(root, start_pipeline(root, *settings, fresh=fresh))
    lines = [line for line in screen.splitlines() if line.startswith("RESULT ")]
    for line in lines:
        screen = screen.replace(line, "")
    return [Finished(root, json.loads(line.removeprefix("RESULT ")), screen, errors) for line in lines]


def result_of(screen: Path) -> dict[str, Any]:
    """The result of the one pipeline that printed to a file."""
    (line,) = [line for line in screen.read_text().splitlines() if line.startswith("RESULT ")]
    return dict(json.loads(line.removeprefix("RESULT ")))


def run_commands(root: Path, *commands: list[str]) -> list[Ended]:
    """Give commands of `sbi-models` in a folder, one after another in one process and on the shared
    server."""
    process = _start_forked(root, "small_commands.py", commands, PREFECT_API_URL=shared_server().url)
    screen, errors = _end_forked(root, process)
    assert errors == ""
    return [Ended(*json.loads(line.removeprefix("RESULT "))) for line in screen.splitlines()]


def _end(root: Path, process: "subprocess.Popen[bytes]") -> tuple[str, str]:
    """What a process that ends well has printed on standard output and standard error."""
    try:
        code = process.wait(240)
    finally:
        process.kill()
    return _said(root, code)


def _end_forked(root: Path, process: BaseProcess) -> tuple[str, str]:
    process.join(240)
    process.kill()
    return _said(root, process.exitcode)


def _said(root: Path, code: int | None) -> tuple[str, str]:
    screen, errors = (root / "screen.txt").read_text(), (root / "errors.txt").read_text()
    assert code == 0, errors
    return screen, errors


def kill_in_training(root: Path, settings: dict[str, Any], script: str = "small_run.py") -> None:
    """Start a small pipeline in a folder, with a Prefect server of its own, and kill it as soon as its
    training has finished an epoch."""
    process = _start_forked(root, script, [settings])
    try:
        deadline = time.monotonic() + 200
        while not list(root.rglob("*.resume.ckpt")):
            assert process.exitcode is None, (root / "errors.txt").read_text()
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.01)
    finally:
        process.kill()
        process.join()
    assert not list(root.rglob("draws.parquet"))
