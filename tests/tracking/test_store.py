import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sbi_models.errors import TrackingError
from sbi_models.tracking import Store, open_store

OPEN_AND_CREATE = """
import sys
from sbi_models.tracking import open_store
store = open_store(sys.argv[1])
print(store.client.get_experiment(store.experiment("shared")).name)
"""


def test_processes_that_open_a_fresh_store_at_once_all_succeed(tmp_path: Path) -> None:
    """Four processes open a store that does not exist: all work, silently, and end up with one experiment in one WAL database."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", OPEN_AND_CREATE, str(tmp_path)]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    results = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 4, results
    assert results == [("shared\n", "")] * 4
    with closing(sqlite3.connect(tmp_path / "mlruns" / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT count(*) FROM experiments WHERE name = 'shared'").fetchone() == (1,)
    assert not list(tmp_path.glob("mlruns/*.new*"))


def test_importing_the_package_does_not_import_mlflow() -> None:
    """`import sbi_models.tracking` imports neither MLflow nor torch, and switches telemetry off."""
    code = (
        "import sys, os, sbi_models.tracking as t; assert not {'mlflow', 'torch', 'prefect', 'matplotlib'} & set(sys.modules); "
        "assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == os.environ['DO_NOT_TRACK'] == 'true'; assert 'open_store' in dir(t)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    """The lazy package still says no to unknown names."""
    import sbi_models.tracking as package  # noqa: PLC0415

    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = package.nothing_of_that_name


def test_an_experiment_keeps_its_files_below_mlruns(store: Store, tmp_path: Path) -> None:
    """An experiment is made on demand, once, with its artifacts in mlruns/artifacts, and nothing is left in the current folder."""
    first, second = store.experiment("npe"), store.experiment("npe")
    assert first == second
    assert store.client.get_experiment(first).artifact_location == (tmp_path / "mlruns" / "artifacts").as_uri()
    assert store.local
    assert store.root == tmp_path


def test_a_deleted_experiment_is_an_error_with_its_cure(store: Store) -> None:
    """A deleted experiment of that name is reported with the command that restores it."""
    store.client.delete_experiment(store.experiment("old"))
    with pytest.raises(TrackingError, match="mlflow experiments restore --experiment-id"):
        store.experiment("old")


def test_the_environment_names_the_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_TRACKING_URI goes before the root, for databases and for servers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    assert open_store(tmp_path / "elsewhere").database == store.database
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    server = open_store(tmp_path)
    assert (server.tracking_uri, server.local, server.artifact_location) == ("http://127.0.0.1:5000", False, None)


@pytest.mark.parametrize("uri", ["file:///tmp/runs", "./runs", "sqlite://", "sqlite:///:memory:"])
def test_stores_that_cannot_work_are_refused(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's file store and databases in memory are a TrackingError that names what was got."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackingError, match="Expected") as caught:
        open_store(tmp_path)
    assert uri in str(caught.value)


def test_a_root_that_cannot_be_written_is_a_tracking_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that is a file, or a folder without write permission, is a TrackingError with the cure."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrackingError, match=r"can be written.*Choose another root"):
        open_store(tmp_path / "file")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(TrackingError, match="can be written"):
            open_store(tmp_path / "closed")


def test_a_database_that_cannot_be_written_is_a_tracking_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
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
