import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sbi_models.errors import TrackingError
from sbi_models.tracking import Store, open_store

WRITE_A_RUN = """
import sys
from sbi_models.tracking import Tracker, open_store
number = int(sys.argv[2])
store = open_store(sys.argv[1])
with Tracker.start(store, "npe", f"run {number}", f"key-{number}", {"seed": number}) as tracker:
    child = tracker.child("member")
    for epoch in range(40):
        tracker.log_epoch(epoch, {"loss": epoch + 0.5, "val_loss": float(number)})
        child.log_epoch(epoch, {"loss": float(number)})
        if epoch % 10 == 0:
            tracker.flush()
            child.flush()
    child.flush()
    tracker.log_metrics({"nrmse": number / 10})
    tracker.set_tags({"verdict": f"word {number}"})
    tracker.log_json({"number": number}, "numbers/a.json")
    tracker.log_dataset("simulations", "/data", {}, "a" * 40, "training")
print(tracker.run_id)
"""


@pytest.mark.integration
def test_processes_that_write_runs_in_a_fresh_folder_at_once_all_succeed(tmp_path: Path) -> None:
    """Four processes each write a run with a child in a folder where there was nothing: no error, no line,
    and nothing is lost or mixed."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    pipe = subprocess.PIPE
    commands = [[sys.executable, "-c", WRITE_A_RUN, str(tmp_path), str(number)] for number in range(4)]
    started = [
        subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        for command in commands
    ]
    results = [process.communicate(timeout=200) for process in started]
    assert [process.returncode for process in started] == [0] * 4, "\n".join(
        error[-3000:] for _, error in results
    )
    assert [error for _, error in results] == [""] * 4
    store = open_store(tmp_path)
    for number, (out, _) in enumerate(results):
        run = store.client.get_run(out.strip())
        assert (run.info.status, run.data.params, run.data.tags["verdict"]) == (
            "FINISHED",
            {"seed": str(number)},
            f"word {number}",
        )
        points = store.client.get_metric_history(run.info.run_id, "loss")
        assert sorted((point.step, point.value) for point in points) == [
            (epoch, epoch + 0.5) for epoch in range(40)
        ]
        (child,) = store.client.search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
        )
        assert {point.value for point in store.client.get_metric_history(child.info.run_id, "loss")} == {
            float(number)
        }
        assert len(store.client.get_metric_history(child.info.run_id, "loss")) == 40
        assert len(run.inputs.dataset_inputs) == 1
    assert len(store.client.search_runs([store.experiment("npe")])) == 8
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(*) FROM experiments WHERE name = 'npe'").fetchone() == (1,)
    assert not list(tmp_path.glob("mlruns/*.new*"))


def test_importing_the_package_does_not_import_mlflow() -> None:
    """`import sbi_models.tracking` imports neither MLflow nor torch."""
    code = (
        "import sys, sbi_models.tracking as t; assert not {'mlflow', 'torch', 'prefect', 'matplotlib'} "
        "& set(sys.modules); assert 'open_store' in dir(t)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    """The lazy package still says no to unknown names."""
    import sbi_models.tracking as package  # noqa: PLC0415

    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = package.nothing_of_that_name


def test_an_experiment_keeps_its_files_below_mlruns(store: Store, tmp_path: Path) -> None:
    """An experiment is made on demand, once, with its artifacts in mlruns/artifacts, and nothing is left in
    the current folder."""
    first, second = store.experiment("npe"), store.experiment("npe")
    assert first == second
    assert (
        store.client.get_experiment(first).artifact_location == (tmp_path / "mlruns" / "artifacts").as_uri()
    )
    assert store.local
    assert store.root == tmp_path


def test_a_deleted_experiment_is_an_error_with_its_cure(store: Store) -> None:
    """A deleted experiment of that name is reported with the command that restores it."""
    store.client.delete_experiment(store.experiment("old"))
    with pytest.raises(TrackingError, match="mlflow experiments restore --experiment-id"):
        store.experiment("old")


def test_the_environment_names_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_TRACKING_URI goes before the root, for databases and for servers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    assert open_store(tmp_path / "elsewhere").database == store.database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    server = open_store(tmp_path)
    assert (server.tracking_uri, server.local, server.artifact_location) == (
        "http://127.0.0.1:5000",
        False,
        None,
    )


@pytest.mark.parametrize("uri", ["file:///tmp/runs", "./runs", "sqlite://", "sqlite:///:memory:"])
def test_stores_that_cannot_work_are_refused(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's file store and databases in memory are a TrackingError that names what was got."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match="Expected") as caught:
        open_store(tmp_path)
    assert uri in str(caught.value)


def test_a_root_that_cannot_be_written_is_a_tracking_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root that is a file, or a folder without write permission, is a TrackingError with the cure."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrackingError, match=r"can be written.*Choose another root"):
        open_store(tmp_path / "file")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(TrackingError, match="can be written"):
            open_store(tmp_path / "closed")


def test_a_database_that_cannot_be_written_is_a_tracking_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only database is found when the store is opened, not at the first write."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(TrackingError, match="permission denied"):
        open_store(store.root)


def test_looking_does_not_make_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With create=False a missing database is a TrackingError and the folder stays empty."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match="Expected a tracking database"):
        open_store(tmp_path, create=False)
    assert not list(tmp_path.iterdir())
