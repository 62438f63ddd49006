"""The pipeline killed with SIGKILL, the whole process group, at ten random moments, against one that was left alone."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from pipeline_runs import run_pipeline, start_pipeline

from sbi_models.tracking import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

SETTINGS = {
    "simulate": {"training": 4096, "rows_per_shard": 256, "validation": 256, "test": 64},
    "train": {"epochs": 40},
    "infer": {"predictive_replicates": 20},
}
KILLS = 10


def _shards(root: Path) -> dict[str, int]:
    """Inode of every shard that is there."""
    return {str(path.relative_to(root)): path.stat().st_ino for path in root.rglob("shard-*.safetensors")}


def _progress(root: Path) -> int:
    """How much there is: it grows as the pipeline goes on."""
    work = root / "mlruns" / "work"
    return len(_shards(root)) + 100 * len(list((work / "results").glob("*"))) + 10 * len(list(work.rglob("*.resume.ckpt")))


def test_it_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    """After ten kills and restarts: the same registered weights and draws, no shard written twice, and one MLflow run.

    Moments are random, from a seed, and count from the first thing that a life adds to what was there, or from its start.
    """
    whole_root, root = tmp_path / "whole", tmp_path / "killed"
    whole_root.mkdir()
    root.mkdir()
    whole = run_pipeline(whole_root, SETTINGS)
    rng, kept, moments = random.Random(20), {}, []
    while len(moments) < KILLS:
        process, before, started = start_pipeline(root, SETTINGS), _progress(root), time.monotonic()
        wait_for_progress, wait = rng.random() < 0.8, rng.uniform(0.0, 6.0)
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
        assert {name: inode for name, inode in now.items() if name in kept} == kept, "a whole shard was written again"
        kept = now
        moments.append({"seconds": round(time.monotonic() - started, 2), "shards": len(now), "ended": ended})
        if ended:
            break
    print(json.dumps(moments))
    assert len(moments) >= 5, "it ended before it could be killed often enough"
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
    assert len(runs) == len(finished) == (2 if moments[-1]["ended"] else 1)
    for run in runs:
        points = store.client.get_metric_history(run.info.run_id, "loss")
        assert sorted(point.step for point in points) == list(range(1, 41))
    assert len(store.client.search_model_versions("name='michelson'")) == 1
