"""A disk that is full, or that nobody may write to: one clear line, nothing lost, and the same command goes
on.

The disk is a small tmpfs that the test mounts, for which it has to be root.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from small_run import small_experiment

from sbi_models.pipeline.experiment.yaml_files import as_yaml

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SBI_MODELS = str(Path(sys.executable).with_name("sbi-models"))
SETTINGS = {
    "simulate": {"training": 150_000, "rows_per_shard": 16_384},
    "train": {"epochs": 2, "batch_size": 1024},
    "infer": {"predictive_replicates": 0},
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a disk of a size, or change it with other options such as "size=200m" or "ro"; returns its
    folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        again = ["-o", f"remount,{options}"] if folder.is_mount() else ["-t", "tmpfs", "-o", options, "tmpfs"]
        subprocess.run(["mount", *again, str(folder)], check=True)
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _run(folder: Path) -> "subprocess.CompletedProcess[str]":
    settings = folder.parent / "small.yaml"
    settings.write_text(as_yaml(small_experiment(SETTINGS)))
    command = [SBI_MODELS, "run", str(settings)]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))
    }
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=400
    )


def _draws(folder: Path) -> pd.DataFrame:
    (file,) = folder.glob("mlruns/artifacts/*/artifacts/inference/draws.parquet")
    return pd.read_parquet(file)


def test_a_full_disk_loses_nothing(disk, tmp_path: Path) -> None:
    """Full while it simulates: one line and exit code 2; with more space, the shards are used and the draws
    are those of an empty disk."""
    folder = disk("size=28m")
    full = _run(folder)
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr
    last = full.stderr.splitlines()[
        -1
    ]  # Prefect, whose database is on this disk too, may have said something before
    assert last.startswith("Error: ")
    assert "No space left on device. Finished shards are kept" in last
    there = {path.name: path.stat().st_ino for path in folder.rglob("shard-*.safetensors")}
    assert len(there) >= 3
    disk("size=300m")
    done = _run(folder)
    assert done.returncode == 0, done.stderr
    assert "were there" in done.stdout
    after = {path.name: path.stat().st_ino for path in folder.rglob("shard-*.safetensors")}
    assert {name: after[name] for name in there} == there
    (tmp_path / "empty").mkdir()
    whole = _run(tmp_path / "empty")
    assert whole.returncode == 0, whole.stderr
    pd.testing.assert_frame_equal(_draws(folder), _draws(tmp_path / "empty"), check_exact=True)


def test_a_read_only_folder_is_refused_before_work_starts(disk) -> None:
    """On a read-only disk, and with runs in it: one line that names the folder, and exit code 2."""
    folder = disk("size=300m")
    disk("ro")
    refused = _run(folder)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "Read-only file system" in refused.stderr
    disk("rw")
    (folder / "mlruns").mkdir()
    disk("ro")
    refused = _run(folder)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert str(folder / "mlruns") in refused.stderr
