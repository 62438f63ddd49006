"""A run holds what it takes to run it again, and what its machine did meanwhile."""

import gc
import json
import platform
import subprocess
import threading
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor

from sbi_models.tracking import Store, Tracker, provenance, run_environment, system_metrics
from sbi_models.tracking.provenance import OWN_COMMIT, git_tags

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("a = 1\n")
    git(folder, "add", "code.py")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_packages_machine_and_code_are_files_of_the_run(
    store: Store, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requirements.txt has exact versions, machine.json the platform, code.json the commit; the patch makes
    the changed file from it."""
    (checkout / "code.py").write_text("a = 2\nb = 'ü'\n")
    (checkout / "new.py").write_text("c = 3\n")
    with monkeypatch.context() as patch:
        patch.chdir(checkout)
        tracker = Tracker.start(store, "npe", "first", "key")
        tracker.log_environment()
        tracker.finish()
    assert tracker.artifact_path is not None
    folder = tracker.artifact_path / "environment"
    texts = {"requirements.txt", "machine.json", "code.json", "library.json", "changes.patch"}
    assert {path.name for path in folder.iterdir()} - {"library_changes.patch"} == texts
    requirements = (folder / "requirements.txt").read_text().splitlines()
    assert f"numpy=={version('numpy')}" in requirements
    assert any(line.endswith(f"sbi-models=={version('sbi-models')}") for line in requirements)
    assert len(requirements) == len(set(requirements))
    machine = json.loads((folder / "machine.json").read_text())
    assert (machine["python"], machine["platform"]) == (platform.python_version(), platform.platform())
    assert machine["torch_threads"] >= 1
    code = json.loads((folder / "code.json").read_text())
    assert code["commit"] == store.client.get_run(tracker.run_id).data.tags["mlflow.source.git.commit"]
    assert code == {
        "commit": code["commit"],
        "dirty": True,
        "untracked": ["new.py"],
        "patch_redacted": False,
        "patch_complete": True,
    }
    git(checkout, "checkout", "-q", "code.py")
    git(checkout, "apply", str(folder / "changes.patch"))
    assert (checkout / "code.py").read_text() == "a = 2\nb = 'ü'\n"


def test_a_patch_has_no_secrets_and_an_end(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords in changed lines are masked, long patches are cut, and code.json says so; a clean checkout
    has no patch."""
    state, patch = run_environment.code_state(checkout)
    assert (state["dirty"], patch) == (False, "")
    assert run_environment.code_state(checkout.parent) == ({}, "")
    (checkout / "code.py").write_text("uri = 'postgresql://anna:hunter2@db/x'\n")
    state, patch = run_environment.code_state(checkout)
    assert "postgresql://anna:***@db/x" in patch
    assert "hunter2" not in patch
    assert (state["patch_redacted"], state["patch_complete"]) == (True, True)
    monkeypatch.setattr(run_environment, "LONGEST_PATCH", 50)
    state, patch = run_environment.code_state(checkout)
    assert (len(patch), state["patch_complete"]) == (50, False)


def measured(store: Store, run_id: str, name: str = "system/cpu_utilization_percentage") -> list[int]:
    return [point.step for point in store.client.get_metric_history(run_id, name)]


def wait_for(store: Store, run_id: str, least: int) -> list[int]:
    for _ in range(200):
        if len(steps := measured(store, run_id)) >= least:
            return steps
        time.sleep(0.05)
    raise AssertionError(f"only {measured(store, run_id)}")


def watchers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("system metrics")}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(system_metrics, "INTERVAL", 0.1)
    monkeypatch.setattr("sbi_models.tracking.live_metrics.INTERVAL", 0.1)


@pytest.mark.usefixtures("quick")
def test_the_machine_is_watched_while_a_run_is_open_and_steps_go_on(store: Store) -> None:
    """Processor, memory, disk and network have points with steps 0, 1, ...; a run that is opened again goes
    on with the next."""
    first = Tracker.start(store, "npe", "first", "key")
    wait_for(store, first.run_id, 2)
    first.finish("FAILED")
    before = measured(store, first.run_id)
    again = Tracker.start(store, "npe", "first", "key")
    assert again.run_id == first.run_id
    wait_for(store, first.run_id, len(before) + 2)
    again.finish()
    steps = measured(store, first.run_id)
    assert sorted(steps) == list(range(len(steps)))
    names = set(store.client.get_run(first.run_id).data.metrics)
    assert {
        "system/system_memory_usage_megabytes",
        "system/disk_usage_percentage",
        "system/network_receive_megabytes",
    } <= names
    time.sleep(0.3)
    assert measured(store, first.run_id) == steps


@pytest.mark.usefixtures("quick")
def test_nothing_is_watched_when_it_is_off_or_a_tracker_is_dropped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false, attached trackers and children start no thread; a dropped
    tracker ends its own."""
    others = watchers()
    tracker = Tracker.start(store, "npe", "first", "key")
    Tracker.attach(store, tracker.run_id).child("member")
    (thread,) = watchers() - others
    del tracker
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    off = Tracker.start(store, "npe", "second", "key-2")
    assert not watchers() - others
    off.finish()
    assert not [name for name in store.client.get_run(off.run_id).data.metrics if name.startswith("system/")]


@pytest.mark.usefixtures("quick")
def test_a_store_that_is_away_and_a_sensor_that_fails_end_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While writes fail and one sensor raises, samples go on; what could not be written is there
    afterwards."""
    monkeypatch.setattr(DiskMonitor, "collect_metrics", lambda sensor: 1 / 0)
    client = type(store.client)
    tracker = Tracker.start(store, "npe", "first", "key")
    with monkeypatch.context() as patch:

        def away(*arguments: object, **options: object) -> None:
            raise ConnectionError("away")

        patch.setattr(client, "log_batch", away)
        time.sleep(0.5)
    wait_for(store, tracker.run_id, 3)
    tracker.finish()
    steps = measured(store, tracker.run_id)
    assert sorted(steps) == list(range(len(steps)))
    assert not [name for name in store.client.get_run(tracker.run_id).data.metrics if "disk" in name]


def test_the_commit_is_that_of_the_users_folder_or_none(
    store: Store, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of code in a folder without git has no commit, whatever the package's own is, which has a tag of
    its own; a run of code in a checkout has that of the checkout, also from another current folder, in its
    tags and in code.json."""
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(
        "sbi_models.tracking.provenance.own_tags",
        lambda: {OWN_COMMIT: "0" * 40, "sbi_models.own_git_dirty": "false"},
    )
    found = {}
    for name, folder in {"none": nowhere, "checkout": checkout}.items():
        with Tracker.start(store, "npe", name, name, folder=folder) as tracker:
            tracker.log_environment()
        assert tracker.artifact_path is not None
        code = json.loads((tracker.artifact_path / "environment" / "code.json").read_text())
        tags = store.client.get_run(tracker.run_id).data.tags
        assert tags[OWN_COMMIT] == "0" * 40
        assert code["commit"] == tags.get("mlflow.source.git.commit")
        found[name] = tags.get("mlflow.source.git.commit"), tags.get("sbi_models.git_dirty")
    assert found["none"] == (None, None)
    assert found["checkout"] == tuple(git_tags(checkout).values())


def test_the_packages_own_commit_is_that_of_its_own_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that lies in the root of a checkout runs from it; one in site-packages of an environment
    inside of another checkout does not."""
    for place, there in {checkout: True, checkout / ".venv" / "lib" / "site-packages": False}.items():
        package = place / "sbi_models" / "tracking"
        package.mkdir(parents=True)
        monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
        own = provenance.own_tags()
        assert own.get(OWN_COMMIT) == (git_tags(checkout)["mlflow.source.git.commit"] if there else None)
