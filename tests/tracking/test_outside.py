"""What happens when the store is away for a while, closed or full: calls wait, or end with one line, and
nothing is logged twice."""

import errno
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking import Store, Tracker, alias_of, live_metrics, open_store, register
from sbi_models.tracking import retries as patience
from sbi_models.tracking import store as store_module
from sbi_models.tracking.retries import patiently


@contextmanager
def locked(store: Store, is_over: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Another connection holds the exclusive lock on the database, from before the block until its end, or
    until this is so."""
    held, ended = threading.Event(), threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(store.database, isolation_level=None)) as connection:
            connection.execute("PRAGMA busy_timeout = 20000")
            connection.execute("BEGIN EXCLUSIVE")
            held.set()
            while not ended.wait(0.01) and not is_over():
                pass
            connection.execute("ROLLBACK")

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    try:
        yield
    finally:
        ended.set()
        holder.join()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite gives up after a tenth of a second in place of MLflow's twenty, and warnings come at once."""

    def shorten(connection: object, cursor: object, statement: str, parameters: object, *_: object) -> Any:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), parameters

    monkeypatch.setattr(patience, "WARN_AFTER", 0.05)
    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


def points(store: Store, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in store.client.get_metric_history(run_id, name))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "write",
    [
        lambda tracker: tracker.log_metrics({"nrmse": 0.5}),
        lambda tracker: tracker.set_tags({"stage": "diagnose"}),
        lambda tracker: tracker.log_dataset("simulations", "/data", {}, "a" * 40, "training"),
        lambda tracker: tracker.child("member", {"width": 3}),
        lambda tracker: tracker.finish(),
        lambda tracker: Tracker.start(tracker.store, "npe", "second", "key-2", {"seed": 1}),
        lambda tracker: tracker.store.experiment("another"),
    ],
    ids=["metrics", "tags", "dataset", "child", "finish", "start", "experiment"],
)
def test_writes_wait_for_a_locked_database(
    store: Store, write: Callable[[Tracker], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Each kind of write to a database that another process has locked until the warning is there succeeds,
    with that one warning, which says why it waits."""
    tracker = Tracker.start(store, "npe", "first", "key")
    with locked(store, is_over=lambda: bool(caplog.records)):
        write(tracker)
    told = [record.getMessage() for record in caplog.records]
    assert (
        len(
            [
                line
                for line in told
                if "not reachable, trying again for up to 5 minutes: " in line
                and "database is locked" in line
            ]
        )
        == 1
    )
    assert len([line for line in told if "reachable again" in line]) == 1
    assert len(told) == 2


@pytest.mark.usefixtures("quick")
def test_a_lock_that_outlasts_patience_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a patience shorter than the lock, the error says what, why and the cure, and the write can be made
    afterwards."""
    monkeypatch.setenv("SBI_MODELS_TRACKING_PATIENCE", "0.5")
    tracker = Tracker.start(store, "npe", "first", "key")
    with locked(store), pytest.raises(TrackingError) as caught:
        tracker.log_metrics({"nrmse": 0.5})
    message = str(caught.value)
    assert message.startswith(
        f"Could not log metrics to run {tracker.run_id}: the tracking store was not reachable for 0."
    )
    assert "database is locked" in message
    assert "SBI_MODELS_TRACKING_PATIENCE=SECONDS waits longer" in message
    assert "\n" not in message
    tracker.log_metrics({"nrmse": 0.5})
    assert points(store, tracker.run_id, "nrmse") == [(0, 0.5)]


@pytest.mark.usefixtures("quick")
def test_live_metrics_outlast_a_lock_without_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the database is locked epochs are logged at once, with one warning and no error, although
    patience is 0; then all are there."""
    monkeypatch.setenv("SBI_MODELS_TRACKING_PATIENCE", "0")
    monkeypatch.setattr(live_metrics, "INTERVAL", 0.05)
    tracker = Tracker.start(store, "npe", "first", "key")
    Tracker.attach(store, tracker.run_id).log_metrics({"loss": 9.0}, step=0)
    again = Tracker.attach(store, tracker.run_id)
    with locked(store):
        for epoch in range(10):
            again.log_epoch(epoch, {"loss": float(epoch)})
        while not caplog.records:
            time.sleep(0.01)
    monkeypatch.setenv("SBI_MODELS_TRACKING_PATIENCE", "20")
    again.flush()
    assert points(store, tracker.run_id, "loss") == [
        (0, 9.0),
        *((epoch, float(epoch)) for epoch in range(1, 10)),
    ]
    assert len([record for record in caplog.records if "points are kept" in record.getMessage()]) == 1


def _loses_its_first_answer(client: type, name: str, lost: list[str]) -> Callable[..., object]:
    """The method of a client that does its work, and the first time loses the connection after that; notes
    its name."""
    real = getattr(client, name)

    def call(*arguments: object, **options: object) -> object:
        done = real(*arguments, **options)
        if name not in lost:
            lost.append(name)
            raise ConnectionError("the answer was lost")
        return done

    return call


@pytest.mark.nightly
def test_points_whose_answer_was_lost_are_there_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that did its work and then lost the connection is made again: one run, one child, one point, one
    data set, one version."""
    client = type(store.client)
    lost: list[str] = []

    names = ["create_experiment", "create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated"]
    for name in names:
        monkeypatch.setattr(client, name, _loses_its_first_answer(client, name, lost))
    tracker = Tracker.start(store, "npe", "first", "key", {"seed": 1})
    tracker.log_metrics({"nrmse": 0.5})
    lost.remove("log_batch")
    tracker.log_metrics({"nrmse": 0.25}, step=1)
    lost.remove("create_run")
    tracker.child("member")
    tracker.log_json({"a": 1}, "a.json")
    tracker.log_dataset("simulations", "/data", {}, "a" * 40, "training")
    tracker.finish()
    assert sorted(lost) == sorted(names)
    runs = store.client.search_runs([tracker.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["first", "member"]
    assert points(store, tracker.run_id, "nrmse") == [(0, 0.5), (1, 0.25)]
    (run,) = [run for run in runs if run.info.run_name == "first"]
    assert (run.info.status, run.data.params, len(run.inputs.dataset_inputs)) == (
        "FINISHED",
        {"seed": "1"},
        1,
    )


def test_two_runs_may_log_the_same_new_data_set_at_once(store: Store) -> None:
    """Where two writers meet at a data set that neither has seen, MLflow refuses one of them; both runs have
    it all the same."""
    trackers = [Tracker.start(store, "npe", f"run {number}", f"key-{number}") for number in range(4)]
    together = threading.Barrier(len(trackers))

    def log(tracker: Tracker) -> None:
        for number in range(8):
            together.wait(60)
            tracker.log_dataset(f"data {number}", "/data", {}, f"{number}" * 40, "training")

    with ThreadPoolExecutor(len(trackers)) as pool:
        list(pool.map(log, trackers))
    for tracker in trackers:
        names = [given.dataset.name for given in store.client.get_run(tracker.run_id).inputs.dataset_inputs]
        assert sorted(names) == [f"data {number}" for number in range(8)]


@pytest.mark.nightly
def test_a_registration_whose_answers_were_lost_makes_one_version(
    store: Store, monkeypatch: pytest.MonkeyPatch, fake_approximators: Callable[..., Path], tmp_path: Path
) -> None:
    """Where each call of a registration does its work and loses its first answer, there are one version and
    one record of its files."""
    client = type(store.client)
    run_id = Tracker.start(store, "npe", "first", "key").run_id
    lost: list[str] = []
    calls = [
        "create_registered_model",
        "create_logged_model",
        "log_outputs",
        "log_model_artifacts",
        "finalize_logged_model",
    ]
    calls += [
        "create_model_version",
        "set_model_version_tag",
        "update_model_version",
        "set_registered_model_alias",
    ]

    for name in calls:
        monkeypatch.setattr(client, name, _loses_its_first_answer(client, name, lost))
    file = fake_approximators(tmp_path / "a.safetensors")
    made = register(
        store, "normal", file, run_id, aliases=["champion"], tags={"a": 1}, description="**good**"
    )
    assert sorted(lost) == sorted(calls)
    assert (made.version, made.reused, alias_of(store, "normal", "champion")) == (1, False, 1)
    run = store.client.get_run(run_id)
    (model,) = store.client.search_logged_models([run.info.experiment_id])
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    (version,) = store.client.search_model_versions("name='normal'")
    assert (version.tags["a"], version.description) == ("1", "**good**")


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A server that answers with the statuses in `statuses`, one a request and the last for ever, and counts
    requests."""
    given = SimpleNamespace(statuses=[200], requests=0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.requests += 1
            status = given.statuses[0] if len(given.statuses) == 1 else given.statuses.pop(0)
            body = (
                b'{"run": {"info": {"run_id": "r", "experiment_id": "1"}}}'
                if status == 200
                else b'{"message": "no"}'
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        given.address = f"http://127.0.0.1:{running.server_address[1]}"
        yield given
        running.shutdown()
        thread.join()


@pytest.fixture
def at_the_server(server: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # as runs of this package have it
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    return open_store(tmp_path)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_server_that_is_overloaded_is_asked_again(
    at_the_server: Store, server: SimpleNamespace, status: int
) -> None:
    """Statuses that mean "later" are waited out."""
    server.statuses = [status, status, 200]
    assert Tracker.attach(at_the_server, "r").run_id == "r"
    assert server.requests == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_wrong_request_fails_at_once(at_the_server: Store, server: SimpleNamespace, status: int) -> None:
    """Statuses that mean "no" are a TrackingError of one line after one request."""
    server.statuses = [status]
    with pytest.raises(TrackingError, match="Could not find the run 'r'") as caught:
        Tracker.attach(at_the_server, "r")
    assert server.requests == 1
    assert "\n" not in str(caught.value)


def test_a_server_that_is_gone_is_one_short_line(
    at_the_server: Store, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a server that answers 503 until patience ends, or with nobody at the port, the error names the
    reason in few words."""
    monkeypatch.setenv("SBI_MODELS_TRACKING_PATIENCE", "0.1")
    server.statuses = [503]
    with pytest.raises(TrackingError, match=r"not reachable for .* \(the server answers with HTTP 503\)"):
        Tracker.attach(at_the_server, "r")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        TrackingError, match=r"not reachable for .* \(http://127.0.0.1:9/\S+ Connection refused\)"
    ) as caught:
        Tracker.attach(open_store(), "r")
    assert len(str(caught.value)) < 350


def test_a_patience_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patience that is no number of seconds is a ConfigurationError."""
    for value in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv("SBI_MODELS_TRACKING_PATIENCE", value)
        with pytest.raises(ConfigurationError, match="number of seconds"):
            patiently("look", lambda: None)


def test_a_full_disk_in_the_middle_is_one_line_with_the_cure(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the disk has no room for is a TrackingError at once; what was to be logged is still there,
    and can be logged later."""
    tracker = Tracker.start(store, "npe", "first", "key")
    (tmp_path / "model.safetensors").write_bytes(b"trained")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(
            TrackingError, match=r"No space left.*Free some space.*command again: what was trained is kept"
        ) as caught:
            tracker.log_file(tmp_path / "model.safetensors")
        with pytest.raises(TrackingError, match=r"No space left.*Free some space"):
            tracker.log_json({"a": 1}, "a.json")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "model.safetensors").read_bytes() == b"trained"
    tracker.log_file(tmp_path / "model.safetensors")
    tracker.finish()


def test_a_full_or_closed_database_is_one_line_with_the_cure(store: Store) -> None:
    """SQLite's own "disk is full" and "readonly database" are not waited for."""
    tracker = Tracker.start(store, "npe", "first", "key")
    engine = store.client._tracking_client.store.engine
    for pragma, message in {
        "PRAGMA max_page_count = 1": r"disk is full.*Free some space",  # SQLite takes the size of now instead
        "PRAGMA query_only = 1": r"readonly database.*Make the folder of the store writable",
    }.items():

        def limit(connection: sqlite3.Connection, record: object, pragma: str = pragma) -> None:
            connection.execute(pragma)

        engine.dispose()
        event.listen(engine, "connect", limit)
        with pytest.raises(TrackingError, match=message):
            tracker.set_tags({f"name-{i}": "x" * 4000 for i in range(100)})
        event.remove(engine, "connect", limit)
        engine.dispose()
    tracker.finish()


def test_a_full_or_closed_disk_is_found_before_work_starts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store without room, or not to be written, is refused when it is opened; reading a full one goes."""
    with monkeypatch.context() as patch:
        patch.setattr(store_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
        with pytest.raises(TrackingError, match=r"Expected at least 20 MB free .* got 3.0 MB. Free space"):
            open_store(store.root)
        assert open_store(store.root, create=False).database == store.database
    (store.root / "mlruns" / "artifacts").mkdir(exist_ok=True)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "artifacts" and real(path, mode))
    with pytest.raises(TrackingError, match=r"permission denied for .*artifacts"):
        open_store(store.root)
