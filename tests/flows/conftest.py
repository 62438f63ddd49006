"""Pipeline runs shared by the tests of this folder: each is a process of its own, as users start it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("small_run.py")


@dataclass
class Finished:
    """What a pipeline process left behind."""

    root: Path
    result: dict[str, Any]
    screen: str
    errors: str


def start_pipeline(root: Path, settings: dict[str, Any] | None = None) -> "subprocess.Popen[bytes]":
    """Start a small pipeline in a folder; what it prints goes to files there, which a temporary server that outlives it cannot block."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    command = [sys.executable, str(SCRIPT), json.dumps(settings or {})]
    with (root / "screen.txt").open("wb") as screen, (root / "errors.txt").open("wb") as errors:
        return subprocess.Popen(command, cwd=root, env=environment, stdout=screen, stderr=errors, start_new_session=True)


def run_pipeline(root: Path, settings: dict[str, Any] | None = None) -> Finished:
    """Run a small pipeline in a folder to its end."""
    process = start_pipeline(root, settings)
    try:
        code = process.wait(timeout=150)
    finally:
        process.kill()
    screen, errors = (root / "screen.txt").read_text(), (root / "errors.txt").read_text()
    assert code == 0, errors
    (line,) = [line for line in screen.splitlines() if line.startswith("RESULT ")]
    return Finished(root, json.loads(line.removeprefix("RESULT ")), screen.replace(line, ""), errors)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A small pipeline in a fresh folder."""
    return run_pipeline(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def second_run(first_run: Finished) -> Finished:
    """The same pipeline once more, in the same folder."""
    return run_pipeline(first_run.root)
