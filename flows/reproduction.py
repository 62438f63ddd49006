"""A tracked pipeline run made again from its record alone, and compared with what it has left."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from flows.runtime import end_on_signals, project_root, work_folder
from flows.source_record import FOLDER, SETTINGS
from flows.voice import answer_console, answer_json, stage_console
from sbi_models.errors import ConfigurationError, SbiModelsError, TrackingError
from sbi_models.tracking import RunRecord, Store, open_store

DRAWS = {"infer": ("draws", "inference/draws.parquet"), "compose": ("composed", "composition/draws.parquet")}
"""Of each task that draws: what its draws are called, and their file in the run."""

FINISHED = "reproduced"


def reproduce_run(run_id: str, folder: Path | None = None) -> bool:
    """Run again what a run did, in a folder of its own with nothing to use again, and say what is the same; True if all of it is.

    An interrupted reproduction goes on; one that has ended begins anew.

    Raises:
        TrackingError: if there is no such run, or it has no record of its settings.
        SbiModelsError: if the pipeline fails.
    """
    end_on_signals()
    record = RunRecord.read(open_store(project_root(), create=False), run_id)
    folder = (folder or work_folder() / "reproductions" / run_id).resolve()
    _make_empty(folder)
    try:
        record.fetch(FOLDER, folder)
    except TrackingError as error:
        raise TrackingError(f"Expected a pipeline run with its settings in {SETTINGS}, got none: {error}") from None
    console = stage_console()
    console.print(f"run          {run_id} again, in {folder}")
    others = record.other_versions()
    for name, (then, now) in others.items():
        console.print(f"             {name} is {now}, was {then}")
    _run(folder)
    (folder / FINISHED).mkdir()
    database = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    again = RunRecord.ended(Store(database, folder, artifact_location=None, local=True), record.experiment_name, "pipeline")[0]
    found = _compared(record, again, folder)
    same = all(equal for equal, _ in found.values())
    console = answer_console()
    for name, (equal, words) in found.items():
        console.print(f"{name:<13}{words if equal else f'[yellow]{words}[/yellow]'}")
    console.print("[green]Reproduced to the bit.[/green]" if same else "[yellow]Not the same to the bit.[/yellow]")
    parts = {name: {"same": equal, "words": words} for name, (equal, words) in found.items()}
    answer_json({"run_id": run_id, "folder": str(folder), "same": same, "parts": parts, "other_versions": others})
    return same


def _make_empty(folder: Path) -> None:
    """Clear what an ended reproduction has left; anything else in the folder is an error."""
    if (folder / FINISHED).exists():
        shutil.rmtree(folder)
    if folder.exists() and {path.name for path in folder.iterdir()} - {FOLDER, "mlruns"}:
        raise ConfigurationError(f"Expected an empty or a new folder, got {folder}, which has other files. Choose another --folder.")
    folder.mkdir(parents=True, exist_ok=True)


def _run(folder: Path) -> None:
    """The pipeline in a process of its own, which tracks in the folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    command = [sys.executable, "-m", "flows.cli", "run", SETTINGS]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        try:
            code = process.wait()
        finally:
            process.terminate()  # if this process is told to end; it then stops its Prefect server
    if code:
        raise SbiModelsError(f"The pipeline ended with exit code {code}. What it said is above; see it again in {folder}.")


def _compared(record: RunRecord, again: RunRecord, folder: Path) -> dict[str, tuple[bool, str]]:
    """Of simulator, simulations, weights, and draws of each kind: whether they are the same, and how far they are apart."""
    rows = {
        "simulator": (record.tags.get("simulator.fingerprint"), again.tags.get("simulator.fingerprint")),
        "simulations": (record.content_hashes, again.content_hashes),
        "weights": (record.tags.get("model.sha256"), again.tags.get("model.sha256")),
    }
    found = {name: (was == is_now, "the same" if was == is_now else "not the same") for name, (was, is_now) in rows.items()}
    for task, (name, file) in DRAWS.items():
        if task in record.tags:
            then, now = (pd.read_parquet(run.fetch(file, folder / FINISHED / of)) for run, of in ((record, "then"), (again, "now")))
            equal = then.equals(now)
            found[name] = (equal, "the same" if equal else _difference(then, now))
    return found


def _difference(then: pd.DataFrame, now: pd.DataFrame) -> str:
    """How far the posteriors of two tables of draws are apart."""
    if list(then.columns) != list(now.columns) or set(then["data_set"]) != set(now["data_set"]):
        return "of other data sets or parameters"
    first, second = (frame.drop(columns="draw").groupby("data_set", sort=True) for frame in (then, now))
    means = (first.mean() - second.mean()) / first.std()
    sds = second.std() / first.std() - 1
    return f"means differ by at most {np.abs(means.to_numpy()).max():.3f} sd, sds by {100 * np.abs(sds.to_numpy()).max():.1f} %"
