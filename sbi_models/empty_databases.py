"""Templates of empty SQLite databases of MLflow and Prefect, cached for the user.

MLflow and Prefect make their tables in seconds; a copy takes none.
"""

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from platformdirs import user_cache_path

from sbi_models.errors import TrackingError

_logger = logging.getLogger(__name__)


def refuse_folder(folder: Path) -> None:
    """Raise TrackingError for a folder whose path has a question mark, at which addresses of SQLite end."""
    if "?" in str(folder):
        raise TrackingError(
            "Expected a folder without a question mark in its path for the tracking database, got "
            f"{folder}. Rename it, or work in another."
        )


def give_tables(database: Path, name: str, make: Callable[[], object]) -> None:
    """Create a database: copy the cached template, or make a new one and cache it.

    Args:
        database: where it shall be, in a folder that exists.
        name: name of the kept database, a word of what made it, with its version.
        make: makes the database in that place.
    """
    template = user_cache_path("sbi_models") / f"{name}.db"
    try:
        if template.is_file():
            _copy(template, database)
            return
    except (OSError, sqlite3.Error) as error:
        _tell(template, error)
    make()
    try:
        template.parent.mkdir(parents=True, exist_ok=True)
        _copy(database, template)
    except (OSError, sqlite3.Error) as error:
        _tell(template, error)


def _copy(source: Path, target: Path) -> None:
    """Copy a database, its write-ahead log included, atomically and without a log of its own."""
    part = target.with_name(f"{target.name}.{os.getpid()}")
    read_only = f"{source.absolute().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(read_only, uri=True)) as database,
            closing(sqlite3.connect(part)) as copy,
        ):
            database.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _tell(template: Path, error: Exception) -> None:
    _logger.warning(
        "No empty database is cached at %s, and each new folder waits some seconds for one: %s.",
        template,
        error,
    )
