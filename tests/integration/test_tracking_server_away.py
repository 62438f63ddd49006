"""A tracking server that goes away in the middle of a run: the run waits, and everything is there once."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from local_servers import free_port, running, stop

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.errors import TrackingError
from sbi_models.networks import CouplingFlow
from sbi_models.tracking import Tracker, alias_of, load, open_store, register

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default::UserWarning")]

AWAY = 15.0
"""Seconds; a new server takes some more until it answers."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[partial[AbstractContextManager]]:
    """Starts the same MLflow server, with its database and files in tmp_path, each time it is called."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    folder = tmp_path / "server"
    folder.mkdir()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--workers",
        "1",
    ]
    command += [
        "--artifacts-destination",
        str(folder / "artifacts"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return partial(
        running,
        command,
        f"{address}/health",
        folder / "server.log",
        {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )


def approximator() -> ContinuousApproximator:
    random = seeding.generator(0, "server test")
    roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    made = ContinuousApproximator(
        adapter=default_adapter(roles), roles=roles, inference_network=CouplingFlow()
    )
    made.build({"theta": random.normal(size=(64, 2)), "x": random.normal(size=(64, 3))}, seed=0)
    return made


def test_a_run_outlasts_a_server_that_goes_away(
    server: partial[AbstractContextManager], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is killed in the middle of the epochs and comes back later: the epochs go on meanwhile, and
    what must be written waits.

    Afterwards the run has each epoch once, its figures and files, one registered version with its alias, and
    has ended as FINISHED.
    """
    store = open_store(tmp_path)
    ended = threading.Event()
    with server() as first:
        tracker = Tracker.start(store, "npe", "first", "key", {"seed": 1})
        tracker.log_epoch(0, {"loss": 0.0})
        tracker.flush()
        stop(first)
    tracker.log_epoch(1, {"loss": 1.0})

    def comes_back() -> None:
        time.sleep(AWAY)
        with server():
            ended.wait(150)

    later = threading.Thread(target=comes_back)
    later.start()
    try:
        started = time.monotonic()
        for epoch in range(2, 50):
            tracker.log_epoch(epoch, {"loss": float(epoch)})
            time.sleep(0.1)
        assert time.monotonic() - started < AWAY
        tracker.log_json({"a": 1}, "a.json")
        path = approximator().save(tmp_path / "trained.safetensors")
        registered = register(
            store, "model", path, tracker.run_id, aliases=["challenger"], description="waited for"
        )
        tracker.finish()
        points = store.client.get_metric_history(tracker.run_id, "loss")
        assert sorted((point.step, point.value) for point in points) == [
            (epoch, float(epoch)) for epoch in range(50)
        ]
        assert "a.json" in {file.path for file in store.client.list_artifacts(tracker.run_id)}
        assert store.client.get_run(tracker.run_id).info.status == "FINISHED"
        assert (registered.version, alias_of(store, "model", "challenger")) == (1, 1)
        draws = load("models:/model@challenger", store).sample(
            num_samples=3, conditions={"x": np.zeros((1, 3))}, seed=1
        )
        assert draws["theta"].shape == (1, 3, 2)
    finally:
        ended.set()
        later.join()
    told = [record.getMessage() for record in caplog.records]
    assert (
        len(
            [
                line
                for line in told
                if "not reachable, trying again for up to 5 minutes" in line and "Connection refused" in line
            ]
        )
        == 1
    )
    assert len([line for line in told if "points are kept" in line]) == 1
    assert len(told) == 3, told


def test_a_server_that_does_not_come_back_is_one_line(
    server: partial[AbstractContextManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When patience ends, each write says so in one line; a name that the server does not know is an error at
    once, without patience."""
    store = open_store(tmp_path)
    with server():
        tracker = Tracker.start(store, "npe", "first", "key")
        started = time.monotonic()
        with pytest.raises(TrackingError, match="Could not find the run 'nothing'"):
            Tracker.attach(store, "nothing")
        with pytest.raises(TrackingError, match="no registered model 'nothing'"):
            load("models:/nothing@champion", store)
        with pytest.raises(TrackingError, match="log metrics"):
            tracker.log_metrics({"what?": 1.0})
        assert time.monotonic() - started < 30
    monkeypatch.setenv("SBI_MODELS_TRACKING_PATIENCE", "1")
    (tmp_path / "file").write_text("a")
    for write in (
        partial(tracker.log_metrics, {"a": 1.0}),
        partial(tracker.set_tags, {"a": "b"}),
        partial(tracker.log_file, tmp_path / "file"),
        tracker.finish,
        partial(register, store, "model", approximator().save(tmp_path / "trained"), tracker.run_id),
    ):
        with pytest.raises(
            TrackingError, match=r"not reachable for .*Connection refused\)\. Start it"
        ) as caught:
            write()
        assert "\n" not in str(caught.value)
