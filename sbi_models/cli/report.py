"""The page of a pipeline run, found in the store and shown."""

import os
import shutil
import sys
import webbrowser
from pathlib import Path

import typer

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.pipeline.folders import project_root, work_folder
from sbi_models.pipeline.report.output import output_settings, print_json
from sbi_models.pipeline.report.usage import FILE
from sbi_models.tracking import RunRecord, open_store

NO_PAGE = "Run its experiment again: finished tasks are used again, and the new run has one."


def open_report(run_id: str | None, output: Path | None, *, browser: bool) -> Path:
    """Print where the page of a run is, by default of the last finished one, and open it in a browser.

    A page that is on a server is downloaded. With `output` it is copied there, and not opened.

    Raises:
        TrackingError: if there is no such run, or it has no page.
        ConfigurationError: if `output` is in no folder.
    """
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise ConfigurationError(
            f"Expected --output as a file in a folder that is there, got {output}. Make the "
            "folder, or name a file."
        )
    store = open_store(project_root(), create=False)
    record = RunRecord.newest(store, "pipeline") if run_id is None else RunRecord.read(store, run_id)
    page = _find(record)
    if output is not None:
        try:
            shutil.copyfile(page, output)
        except OSError as error:
            raise ConfigurationError(
                f"Expected --output as a file that can be written, got {output}: {error.strerror}."
            ) from None
        page = output
    if output_settings().as_json:
        print_json({"run_id": record.run_id, "experiment": record.experiment_name, "report": str(page)})
        return page
    typer.echo(str(page))
    if browser and output is None and has_display():
        webbrowser.open(page.resolve().as_uri())
    return page


def _find(record: RunRecord) -> Path:
    path = record.local_file(FILE)
    if path is not None:
        return path
    try:
        return record.fetch(FILE, work_folder() / "reports" / record.run_id)
    except TrackingError as error:
        raise TrackingError(
            f"Expected a pipeline run with a page {FILE}, got none: {error} {NO_PAGE}"
        ) from None


def has_display() -> bool:
    """Whether a browser would have somewhere to show itself."""
    return sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
