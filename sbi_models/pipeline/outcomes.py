"""What a task leaves in its folder, and what of it becomes metrics and tags: written by the task, recorded in
a run by the pipeline.

So a finished task can be used again by a later run, which then has a page as whole as that of the first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from sbi_models.pipeline.cache import file_sha256
from sbi_models.tracking import Tracker

Manifest = dict[str, Any]

DPI = 120


class Figure(Protocol):
    """A Matplotlib figure."""

    def savefig(self, fname: Any, *, dpi: Any = ...) -> object: ...


class Results:
    """Writes the files of a task, at their places in the run, and collects numbers and tags."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, str] = {}
        self._files: list[str] = []

    def path(self, file: str) -> Path:
        """Where to write a file of the run, such as "inference/draws.parquet"; it counts as written."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.append(file)
        return path

    def figures(self, figures: Mapping[str, Figure]) -> None:
        """Pictures `figures/NAME.png`."""
        for name, figure in figures.items():
            figure.savefig(self.path(f"figures/{name}.png"), dpi=DPI)

    def table(self, table: pd.DataFrame, file: str) -> None:
        """A CSV file; a plain 0, 1, 2, ... index is left out."""
        table.to_csv(self.path(file), index=not isinstance(table.index, pd.RangeIndex))

    def json(self, content: Any, file: str) -> None:
        """A JSON file."""
        self.path(file).write_text(json.dumps(content, indent=2), encoding="utf-8")

    def manifest(self) -> Manifest:
        """Folder, files with their sha256, metrics and tags."""
        files = {file: file_sha256(self.folder / file) for file in sorted(set(self._files))}
        return {"folder": str(self.folder), "files": files, "metrics": self.metrics, "tags": self.tags}


def intact(manifest: Mapping[str, Any]) -> bool:
    """True if every file of a manifest, and of those of members, is there to the bit."""
    folder = Path(manifest["folder"])
    own = all(
        (folder / file).is_file() and file_sha256(folder / file) == sha256
        for file, sha256 in manifest["files"].items()
    )
    return own and all(intact(member) for member in manifest.get("members", {}).values())


def record(tracker: Tracker, manifest: Mapping[str, Any]) -> None:
    """Copy the files to a run, and set its metrics and tags."""
    if manifest["files"]:
        tracker.log_folder(manifest["folder"])
    tracker.log_metrics(manifest["metrics"])
    tracker.set_tags(manifest["tags"])
