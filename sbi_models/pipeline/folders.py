"""Folders of a project: its root, and what steps keep for later runs."""

import os
import shutil
from pathlib import Path

_root: Path | None = None
"""Folder of the project in a worker whose current folder is another one."""


def project_root() -> Path:
    """The folder that holds `mlruns/`: the current one; in a worker, that of the run."""
    return _root or Path.cwd()


def work_for(root: str) -> None:
    """Let a worker, whatever its current folder, use the folder of the project that its work belongs to."""
    global _root  # noqa: PLW0603 - the memory of a worker
    _root = None if Path(root) == Path.cwd() else Path(root)


def work_folder() -> Path:
    """Where tasks keep what a later run can use again: simulations, training states, results of tasks."""
    return project_root() / "mlruns" / "work"


def forget(key: str) -> None:
    """Remove what tasks have kept under a key, so that they begin anew."""
    folder = work_folder() / key
    if folder.exists():
        gone = folder.with_name(f".{key}.{os.getpid()}.gone")  # at once, whoever is killed meanwhile
        folder.rename(gone)
        shutil.rmtree(gone)
