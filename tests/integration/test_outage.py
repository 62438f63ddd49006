"""An MLflow server that goes away for half a minute in the middle of a training: the pipeline waits, and
nothing is lost."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import result_of, small_run
from processes import stop
from servers import MlflowServer, Servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

AWAY = 30.0
"""Seconds."""
EPOCHS = 40


def _killed(server: MlflowServer) -> None:
    """Nobody listens on the port."""
    server.stop()
    time.sleep(AWAY)
    server.start()
    server.wait()


def _frozen(server: MlflowServer) -> None:
    """Connections are taken and not answered."""
    server.signal(signal.SIGSTOP)
    time.sleep(AWAY)
    server.signal(signal.SIGCONT)


@pytest.fixture
def started(real_servers: Servers, tmp_path: Path) -> "Iterator[Callable[..., subprocess.Popen[bytes]]]":
    """Starts pipelines whose screen and errors go to files in the test's folder; stops them."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(**changes: Any) -> "subprocess.Popen[bytes]":
        with (tmp_path / "screen.txt").open("wb") as screen, (tmp_path / "errors.txt").open("wb") as errors:
            command, environment = small_run(**changes), real_servers.client()
            processes.append(
                subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=screen, stderr=errors)
            )
        return processes[-1]

    yield start
    for process in processes:
        stop(process)


@pytest.mark.parametrize(("seed", "away"), [(21, _killed), (22, _frozen)])
def test_a_server_that_is_away_for_half_a_minute_costs_nothing(
    real_servers: Servers, started, tmp_path: Path, seed: int, away: Callable[[MlflowServer], None]
) -> None:
    """The training goes on without the server, and the run ends FINISHED with one point an epoch, the model
    and the draws."""
    process = started(seed=seed, train={"epochs": EPOCHS}, register_as={"name": f"michelson-{seed}"})
    _wait_for_checkpoint(tmp_path, process)
    away(real_servers.mlflow)
    code = process.wait(timeout=240)
    screen, errors = (tmp_path / "screen.txt").read_text(), (tmp_path / "errors.txt").read_text()
    assert code == 0, errors
    assert "Traceback" not in errors
    result = result_of(screen)
    client = real_servers.tracking()
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    points = sorted(client.get_metric_history(result["run_id"], "loss"), key=lambda point: point.step)
    assert [point.value for point in points] == result["training"]["history"]["loss"]
    assert len(points) == EPOCHS
    assert result["registered"]["version"] == 1
    assert {file.path for file in client.list_artifacts(result["run_id"], "inference")} >= {
        "inference/draws.parquet"
    }


def _wait_for_checkpoint(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(3000):
        if list(folder.rglob("*.resume.ckpt")):
            return
        assert process.poll() is None, (folder / "errors.txt").read_text()
        time.sleep(0.02)
    pytest.fail("no epoch was trained within a minute")
