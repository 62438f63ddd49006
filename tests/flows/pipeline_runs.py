"""Pipeline runs in processes of their own, as users start them."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Finished:
    """What a pipeline process left behind."""

    root: Path
    result: dict[str, Any]
    screen: str
    errors: str


def start_pipeline(root: Path, *settings: dict[str, Any], script: str = "small_run.py", label: str = "") -> "subprocess.Popen[bytes]":
    """Start a small pipeline in a folder, or several in a row, each with its settings.

    What it prints goes to files there, whose names start with the label.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(json.dumps, settings or [{}])]
    with (root / f"{label}screen.txt").open("wb") as screen, (root / f"{label}errors.txt").open("wb") as errors:
        return subprocess.Popen(command, cwd=root, env=environment, stdout=screen, stderr=errors, start_new_session=True)


def run_pipeline(root: Path, settings: dict[str, Any] | None = None) -> Finished:
    """Run a small pipeline in a folder to its end."""
    (finished,) = run_pipelines(root, settings or {})
    return finished


def run_pipelines(root: Path, *settings: dict[str, Any]) -> list[Finished]:
    """Run small pipelines in a folder, one after another in one process; the screen of all of them is that of each."""
    process = start_pipeline(root, *settings)
    try:
        code = process.wait(timeout=240)
    finally:
        process.kill()
    screen, errors = (root / "screen.txt").read_text(), (root / "errors.txt").read_text()
    assert code == 0, errors
    lines = [line for line in screen.splitlines() if line.startswith("RESULT ")]
    for line in lines:
        screen = screen.replace(line, "")
    return [Finished(root, json.loads(line.removeprefix("RESULT ")), screen, errors) for line in lines]


def result_of(screen: Path) -> dict[str, Any]:
    """The result of the one pipeline that printed to a file."""
    (line,) = [line for line in screen.read_text().splitlines() if line.startswith("RESULT ")]
    return dict(json.loads(line.removeprefix("RESULT ")))


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
