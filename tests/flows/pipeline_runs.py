"""Pipeline runs in processes of their own, as users start them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

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
    home = Path(tempfile.mkdtemp(prefix="prefect-server-"))
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
    with (log := home / "log.txt").open("wb") as output:
        own_home = _environment() | {"PREFECT_HOME": str(home)}  # and not that of the user
        process = subprocess.Popen(command, cwd=home, env=own_home, stdout=output, stderr=output)
    server = ServerProcess(process, f"http://127.0.0.1:{port}/api", log)
    server.wait()
    return server


def stop_shared_server() -> None:
    """Stop it, if there is one, and remove what it has written."""
    if shared_server.cache_info().currsize:
        server = shared_server()
        server.stop()
        shutil.rmtree(server.log.parent)


def start_pipeline(
    root: Path,
    *settings: Any,
    script: str = "small_run.py",
    label: str = "",
    fresh: bool = False,
    shared: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start a small pipeline in a folder, or several in a row, each with its settings.

    What it prints goes to files there, whose names start with the label. It reports to the shared server, or
    starts one of its own. With fresh, the user has no empty databases of earlier folders.
    """
    environment = _environment()
    if shared:
        environment["PREFECT_API_URL"] = shared_server().url
    if fresh:
        environment["XDG_CACHE_HOME"] = str(root / "cache")
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(json.dumps, settings or [{}])]
    with (
        (root / f"{label}screen.txt").open("wb") as screen,
        (root / f"{label}errors.txt").open("wb") as errors,
    ):
        return subprocess.Popen(
            command, cwd=root, env=environment, stdout=screen, stderr=errors, start_new_session=True
        )


def _environment() -> dict[str, str]:
    """That of this process without what it says of the engines."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


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
    each."""
    screen, errors = _end(root, start_pipeline(root, *settings, fresh=fresh, shared=shared))
    lines = [line for line in screen.splitlines() if line.startswith("RESULT ")]
    for line in lines:
        screen = screen.replace(line, "")
    return [Finished(root, json.loads(line.removeprefix("RESULT ")), screen, errors) for line in lines]


def result_of(screen: Path) -> dict[str, Any]:
    """The result of the one pipeline that printed to a file."""
    (line,) = [line for line in screen.read_text().splitlines() if line.startswith("RESULT ")]
    return dict(json.loads(line.removeprefix("RESULT ")))


def run_commands(root: Path, *commands: list[str]) -> list[Ended]:
    """Give commands of `sbi-models` in a folder, one after another in one process and on one Prefect
    server."""
    screen, errors = _end(root, start_pipeline(root, *commands, script="small_commands.py"), timeout=220)
    assert errors == ""
    return [Ended(*json.loads(line.removeprefix("RESULT "))) for line in screen.splitlines()]


def _end(root: Path, process: "subprocess.Popen[bytes]", timeout: float = 240) -> tuple[str, str]:
    """What a process that ends well has printed on standard output and standard error."""
    try:
        code = process.wait(timeout)
    finally:
        process.kill()
    screen, errors = (root / "screen.txt").read_text(), (root / "errors.txt").read_text()
    assert code == 0, errors
    return screen, errors


def kill_in_training(root: Path, *settings: dict[str, Any], script: str = "small_run.py") -> None:
    """Start a small pipeline in a folder and kill it as soon as its training has finished an epoch."""
    process = start_pipeline(root, *settings, script=script)
    try:
        for _ in range(6000):
            if list(root.rglob("*.resume.ckpt")):
                break
            assert process.poll() is None, (root / "errors.txt").read_text()
            time.sleep(0.01)
        else:
            pytest.fail("no checkpoint was written within a minute")
    finally:
        process.kill()
        process.wait()
    assert not list(root.rglob("draws.parquet"))
