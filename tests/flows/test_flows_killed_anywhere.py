"""The pipeline killed with SIGKILL, the whole process group, at ten random moments, against one that was left
alone."""

import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from pipeline_runs import run_pipeline, start_pipeline

from sbi_models.tracking import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

EPOCHS, KILLS = 150, 10

SETTINGS = {
    "simulate": {"training": 4096, "rows_per_shard": 256, "validation": 256, "test": 64},
    "train": {"epochs": EPOCHS},
    "infer": {"predictive_replicates": 20},
}


def _shards(root: Path) -> dict[str, int]:
    """Inode of every shard that is there."""
    return {str(path.relative_to(root)): path.stat().st_ino for path in root.rglob("shard-*.safetensors")}


def _progress(root: Path) -> tuple[int, int, list[int]]:
    """Shards, finished tasks, and when the state of the training was written: it changes as the pipeline goes
    on."""
    work, written = root / "mlruns" / "work", []
    for state in work.rglob("*.resume.ckpt"):
        with suppress(FileNotFoundError):
            written.append(state.stat().st_mtime_ns)
    return len(_shards(root)), len(list((work / "results").glob("*"))), written


def _finished_runs(root: Path) -> int:
    """How many runs MLflow has as finished."""
    if not (root / "mlruns" / "mlflow.db").is_file():
        return 0
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as database:
        return int(database.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0])


def test_it_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    """After ten kills and restarts: the same registered weights and draws, no shard written twice, and one
    MLflow run.

    Moments are random, from a seed, and count from the first thing that a life adds to what was there, or
    from its start.
    """
    whole_root, root = tmp_path / "whole", tmp_path / "killed"
    whole_root.mkdir()
    root.mkdir()
    whole = run_pipeline(whole_root, SETTINGS)
    rng, kept, moments = random.Random(20), {}, []
    while len(moments) < KILLS and not _finished_runs(root):
        process, before, started = start_pipeline(root, SETTINGS), _progress(root), time.monotonic()
        wait_for_progress, wait = rng.random() < 0.8, rng.uniform(0.0, 3.0)
        while wait_for_progress and _progress(root) == before and process.poll() is None:
            time.sleep(0.01)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not ended or process.returncode == 0, (root / "errors.txt").read_text()
        now = _shards(root)
        assert {name: inode for name, inode in now.items() if name in kept} == kept, (
            "a whole shard was written again"
        )
        kept = now
        moments.append(
            {"seconds": round(time.monotonic() - started, 2), "shards": len(now), "tasks": _progress(root)[1]}
        )
    print(json.dumps(moments))
    assert len(moments) == KILLS, "it ended before it had been killed often enough"
    whole_runs = _finished_runs(
        root
    )  # 1 if the last life was killed after its run had finished, and before it was gone
    again = run_pipeline(root, SETTINGS)
    assert {name: inode for name, inode in _shards(root).items() if name in kept} == kept
    assert len(_shards(root)) == 16 + 1 + 1
    assert again.result["simulations"]["content_hash"] == whole.result["simulations"]["content_hash"]
    assert again.result["training"]["sha256"] == whole.result["training"]["sha256"]
    assert again.result["training"]["history"] == whole.result["training"]["history"]
    assert again.result["inference"]["draws_sha256"] == whole.result["inference"]["draws_sha256"]
    assert again.result["diagnosis"]["verdict"] == whole.result["diagnosis"]["verdict"]
    store = open_store(root)
    runs = store.client.search_runs([store.experiment("michelson")])
    finished = [run for run in runs if run.info.status == "FINISHED"]
    assert len(runs) == len(finished) == 1 + whole_runs
    for run in runs:
        points = store.client.get_metric_history(run.info.run_id, "loss")
        assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))
    assert len(store.client.search_model_versions("name='michelson'")) == 1
