"""A tracked pipeline run made again from its record alone, and compared with what it has left."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.markup import escape

from sbi_models.errors import ConfigurationError, SbiModelsError, TrackingError
from sbi_models.pipeline.folders import project_root, work_folder
from sbi_models.pipeline.report.output import print_json, progress_console, result_console
from sbi_models.pipeline.run_comparison import changes_since, compare_runs, training_code
from sbi_models.pipeline.runtime import end_on_signals
from sbi_models.pipeline.source_record import FOLDER, SETTINGS
from sbi_models.tracking import RunRecord, Store, open_store

FINISHED = "reproduced"


def reproduce_run(run_id: str, folder: Path | None = None) -> bool:
    """Run again what a run did, in a folder of its own, and compare; True if all is the same to the bit.

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
        raise TrackingError(
            f"Expected a pipeline run with its settings in {SETTINGS}, got none: {error}"
        ) from None
    console = progress_console()
    console.print(f"run          {run_id} again, in {folder}")
    changes = changes_since(record)
    for words in changes:
        console.print(f"             {escape(words)}")
    _run(folder)
    (folder / FINISHED).mkdir()
    database = f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"
    again = RunRecord.ended(
        Store(database, folder, artifact_location=None, local=True), record.experiment_name, "pipeline"
    )[0]
    parts = compare_runs(record, again, folder / FINISHED)
    same = all(equal for equal, _ in parts.values())
    console = result_console()
    for name, (equal, words) in parts.items():
        console.print(f"{name:<13}{escape(words) if equal else f'[yellow]{escape(words)}[/yellow]'}")
    code = training_code(record, again)
    console.print(
        "[green]Reproduced to the bit.[/green]" if same else "[yellow]Not the same to the bit.[/yellow]"
    )
    if not same:
        console.print(escape(_why(changes, code)))
    answer = {
        "run_id": run_id,
        "folder": str(folder),
        "same": same,
        "parts": {name: {"same": equal, "words": words} for name, (equal, words) in parts.items()},
        "changes": changes,
        "training_code": code,
    }
    print_json(answer | {"other_versions": record.other_versions()})
    return same


def _why(changes: list[str], code: str | None) -> str:
    """What is not as it was then, which may be why a run was not reproduced."""
    known = "" if code is None else f"; {code}"
    if not changes:
        return (
            "Versions, code of sbi_models and machine are those of then, as far as the run has noted "
            f"them{known}."
        )
    return f"Not as it was then: {', '.join(changes)}{known}."


def _make_empty(folder: Path) -> None:
    """Clear what an ended reproduction has left; anything else in the folder is an error."""
    if (folder / FINISHED).exists():
        shutil.rmtree(folder)
    if folder.exists() and {path.name for path in folder.iterdir()} - {FOLDER, "mlruns"}:
        raise ConfigurationError(
            f"Expected an empty or a new folder, got {folder}, which has other files. Choose "
            "another --folder."
        )
    folder.mkdir(parents=True, exist_ok=True)


def _run(folder: Path) -> None:
    """The pipeline in a process of its own, which tracks in the folder."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))
    }
    command = [sys.executable, "-m", "sbi_models.cli.main", "run", SETTINGS]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        try:
            code = process.wait()
        finally:
            process.terminate()  # if this process is told to end; it then stops its Prefect server
    if code:
        raise SbiModelsError(
            f"The pipeline ended with exit code {code}. What it said is above; see it again in {folder}."
        )
