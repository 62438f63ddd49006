import json
import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forked_programs import start_forked

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking import Store, Tracker, live_metrics
from sbi_models.tracking.provenance import git_tags

LIFE = """
import os, sys
from sbi_models.tracking import Tracker, open_store
params = {"seed": 3, "training": {"epochs": 6}}
tracker = Tracker.start(open_store(sys.argv[1]), "npe", "first", "key-1", params)
for epoch in range(4):
    tracker.log_epoch(epoch, {"loss": 1.0 / (epoch + 1)})
tracker.flush()
print(tracker.run_id, flush=True)
os._exit(9)
"""


class Picture:
    """Stands for a Matplotlib figure."""

    def savefig(self, fname: Path, **options: object) -> None:
        Path(fname).write_bytes(b"\x89PNG")


def start(store: Store, key: str = "key-1", **more: object) -> Tracker:
    return Tracker.start(store, "npe", "first", key, {"seed": 3, "training": {"epochs": 6}}, **more)  # type: ignore[arg-type]


def curve(store: Store, run_id: str, name: str = "loss") -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in store.client.get_metric_history(run_id, name))


def files(store: Store, run_id: str, folder: str | None = None) -> set[str]:
    return {file.path for file in store.client.list_artifacts(run_id, folder)}


@pytest.mark.acceptance
@pytest.mark.xdist_group("flows")  # whose fork server starts its process
def test_a_killed_run_is_opened_again_and_its_epochs_are_not_doubled(store: Store, tmp_path: Path) -> None:
    """After a process died in epoch 4, the next one with the same key gets the same run; logging all epochs
    again doubles none."""
    (tmp_path / "life.py").write_text(LIFE)
    process = start_forked(tmp_path / "life.py", [str(store.root)], folder=tmp_path)
    process.join()
    assert process.exitcode == 9, (tmp_path / "errors.txt").read_text()
    tracker = start(store)
    assert (tracker.run_id, tracker.reopened) == ((tmp_path / "screen.txt").read_text().strip(), True)
    for epoch in range(6):
        tracker.log_epoch(epoch, {"loss": 1.0 / (epoch + 1)})
    tracker.finish()
    assert curve(store, tracker.run_id) == [(epoch, 1.0 / (epoch + 1)) for epoch in range(6)]
    assert store.client.get_run(tracker.run_id).info.status == "FINISHED"


def test_a_finished_run_is_not_opened_again(store: Store) -> None:
    """A second run with the key of a finished one is a new run; one with the key of a failed one is the same
    run."""
    first = start(store)
    first.finish()
    second = start(store)
    assert second.run_id != first.run_id
    second.finish("FAILED")
    third = start(store)
    assert (third.run_id, third.reopened) == (second.run_id, True)
    assert store.client.get_run(third.run_id).info.status == "RUNNING"


def test_a_run_that_another_process_is_writing_is_left_alone(store: Store) -> None:
    """The RUNNING run of a live process is not taken over; that of a dead process, or of another host, is."""
    first = start(store)
    parent = {"sbi_models.pid": str(os.getppid()), "sbi_models.host": socket.gethostname()}
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    created = f"{psutil.Process(os.getppid()).create_time():.2f}"
    first.set_tags({**parent, "sbi_models.process_start": created})
    second = start(store)
    assert second.run_id != first.run_id
    second.finish()
    first.set_tags({"sbi_models.process_start": "0.00"})
    assert start(store).run_id == first.run_id


def test_parameters_and_origin_are_kept(store: Store) -> None:
    """Nested parameters are flattened and written once; tags tell key, seed, versions; a re-opened run keeps
    its parameters."""
    first = start(store, tags={"model": "flow"})
    first.finish("KILLED")
    again = Tracker.start(
        store, "npe", "first", "key-1", {"seed": 4, "many": {str(i): i for i in range(150)}}
    )
    run = store.client.get_run(again.run_id)
    assert again.run_id == first.run_id
    assert run.data.params["seed"] == "3"
    assert run.data.params["training.epochs"] == "6"
    assert run.data.params["many.149"] == "149"
    tags = run.data.tags
    assert (tags["sbi_models.key"], tags["sbi_models.seed"], tags["model"]) == ("key-1", "3", "flow")
    assert {
        "version.torch",
        "version.mlflow",
        "version.numpy",
        "version.python",
        "version.lightning",
        "version.prefect",
    } <= set(tags)


def test_the_commit_is_known_in_a_checkout_only(tmp_path: Path) -> None:
    """In a git checkout the tags have the commit and whether files were changed; elsewhere there are none."""
    assert git_tags(tmp_path) == {}
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = git_tags(tmp_path)
    assert len(clean["mlflow.source.git.commit"]) == 40
    assert clean["sbi_models.git_dirty"] == "false"
    (tmp_path / "file").write_text("2")
    assert git_tags(tmp_path) == {**clean, "sbi_models.git_dirty": "true"}


def test_curves_show_while_the_run_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without flush or finish, points reach the database within the interval, in few calls."""
    monkeypatch.setattr(live_metrics, "INTERVAL", 0.2)
    tracker = start(store)
    for epoch in range(50):
        tracker.log_epoch(epoch, {"loss": float(epoch), "val_loss": float("nan")})
    assert tracker._live is not None
    for _ in range(100):
        timer = tracker._live._timer
        if timer is None:
            break
        timer.join(5)
    assert len(curve(store, tracker.run_id)) == 50


def test_a_write_that_fails_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that is busy once loses no point and does not stop the training; flush itself reports it."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    tracker = start(store)
    with monkeypatch.context() as patch:

        def busy(*arguments: object, **options: object) -> None:
            raise MlflowException("database is locked")

        patch.setattr(type(store.client), "log_batch", busy)
        tracker.log_epoch(0, {"loss": 1.0})
        with pytest.raises(TrackingError, match="database is locked"):
            tracker.flush()
        assert tracker._live is not None
        tracker._live._flush_from_timer()
    assert "database is locked" in caplog.text
    tracker.finish()
    assert curve(store, tracker.run_id) == [(0, 1.0)]


def test_figures_tables_and_files_are_there_when_read_back(store: Store, tmp_path: Path) -> None:
    """Figures become pictures below figures/, tables CSV; files are copied."""
    tracker = start(store)
    tracker.log_figures({"losses": Picture(), "member/recovery": Picture()})
    table = pd.DataFrame({"parameter": ["mu", "log_variance"], "nrmse": [0.1, 0.2]})
    tracker.log_table(table, "metrics/default.csv")
    (tmp_path / "note.txt").write_text("hello")
    tracker.log_file(tmp_path / "note.txt", "notes")
    tracker.log_metrics({"nrmse": 0.1}, step=2)
    tracker.log_metrics({"ece": 0.2})
    tracker.finish()
    assert files(store, tracker.run_id, "figures") == {"figures/losses.png", "figures/member"}
    folder = tracker.artifact_path
    assert folder is not None
    pd.testing.assert_frame_equal(pd.read_csv(folder / "metrics" / "default.csv"), table)
    assert (folder / "notes" / "note.txt").read_text() == "hello"
    assert (folder / "figures" / "member" / "recovery.png").read_bytes().startswith(b"\x89PNG")
    assert curve(store, tracker.run_id, "nrmse") == [(2, 0.1)]
    assert store.client.get_run(tracker.run_id).data.metrics["ece"] == 0.2


def test_data_sets_are_inputs_with_our_hash(store: Store, tmp_path: Path) -> None:
    """A data set is an input of the run with our hash as digest, its shapes and its context; logging it again
    adds nothing."""
    import mlflow.data  # noqa: PLC0415

    tracker = start(store)
    arrays = {"theta": np.zeros((8, 2), np.float32), "x": np.zeros((8, 20, 1), np.float32)}
    for _ in range(2):
        tracker.log_dataset("simulations", tmp_path / "data", arrays, "a" * 32 + "b" * 32, "training")
    (given,) = store.client.get_run(tracker.run_id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("simulations", "a" * 32 + "bbbb")
    assert {tag.key: tag.value for tag in given.tags} == {
        "mlflow.data.context": "training",
        "sbi_models.content_hash": "a" * 32 + "b" * 32,
    }
    assert json.loads(given.dataset.profile)["features_shape"] == {"theta": [8, 2], "x": [8, 20, 1]}
    assert "float32" in given.dataset.schema
    assert mlflow.data.get_source(given.dataset).uri == (tmp_path / "data").as_uri()


def test_another_part_of_the_program_can_attach_by_id(store: Store) -> None:
    """A tracker attached by id adds to the run, skips epochs that are there, and an unknown id is a
    TrackingError."""
    first = start(store)
    first.log_epoch(0, {"loss": 1.0})
    first.finish()
    second = Tracker.attach(store, first.run_id)
    second.log_epoch(0, {"loss": 1.0})
    second.log_epoch(1, {"loss": 0.5})
    second.set_tags({"stage": "diagnose"})
    second.flush()
    assert curve(store, first.run_id) == [(0, 1.0), (1, 0.5)]
    assert store.client.get_run(first.run_id).info.status == "FINISHED"
    with pytest.raises(TrackingError, match="find the run 'nothing'"):
        Tracker.attach(store, "nothing")


def test_the_run_ends_as_its_block_ends(store: Store) -> None:
    """As a context manager a tracker finishes the run as FINISHED, FAILED on an error, KILLED on an
    interrupt."""
    ends = {}
    for key, error in {"a": None, "b": ValueError, "c": KeyboardInterrupt}.items():
        try:
            with start(store, key) as tracker:
                if error is not None:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        ends[key] = store.client.get_run(tracker.run_id).info.status
    assert ends == {"a": "FINISHED", "b": "FAILED", "c": "KILLED"}


def test_what_a_caller_can_get_wrong_is_said(store: Store, tmp_path: Path) -> None:
    """Bad keys, statuses, file names and metric names are errors before or instead of half-written runs."""
    with pytest.raises(ConfigurationError, match="key without quotes"):
        start(store, "it's")
    tracker = start(store)
    with pytest.raises(ConfigurationError, match="FINISHED, FAILED or KILLED"):
        tracker.finish("DONE")
    with pytest.raises(ConfigurationError, match="stays inside"):
        tracker.log_figures({"../../outside": Picture()})
    with pytest.raises(ConfigurationError, match="Expected a file"):
        tracker.log_file(tmp_path / "missing")
    with pytest.raises(TrackingError, match="log metrics"):
        tracker.log_metrics({"loss?": 1.0})
