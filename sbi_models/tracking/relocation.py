"""Relocation of a local store whose project was moved or copied.

The database has whole addresses of the files of runs and models. In a copy they are those of the original, to
which the copy would write.
"""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sbi_models.errors import TrackingError
from sbi_models.tracking.redaction import redacted

_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns of MLflow's tables that hold addresses below the folder of artifacts."""

_SECONDS = 30.0


@dataclass(frozen=True)
class Relocated:
    """Result of `relocate`: addresses before, number of changed entries, number of copied folders."""

    before: tuple[str, ...]
    entries: int
    copied: int


def refuse_other_place(database: Path, artifacts: Path) -> None:
    """Raise TrackingError if the database names the `artifacts` of another project folder.

    Other places, such as a bucket or a folder that was chosen by hand, are right wherever the database is.
    """
    if places := _other_places(database, artifacts):
        raise TrackingError(
            f"Expected the files of the runs in {database} at {artifacts}, got {redacted(places[0])}: the "
            "project was moved or copied. Nothing is read or written there. Make this folder its own place "
            "with: sbi-models relocate"
        )


def relocate(database: Path, artifacts: Path) -> Relocated:
    """Let the database name the folder beside it, and copy files that are in the old place alone.

    Nothing in the old place is changed.

    Raises:
        TrackingError: files cannot be copied, or the database cannot be written.
    """
    places, entries, copied = _other_places(database, artifacts), 0, 0
    for place in places:
        try:
            copied += _copy_missing(database, place, artifacts)
        except OSError as error:
            raise TrackingError(
                f"Expected to copy the files of {redacted(place)} to {artifacts}, got: {error}. "
                "Nothing was changed."
            ) from None
    try:
        with closing(sqlite3.connect(database, timeout=_SECONDS)) as connection, connection:
            for place in places:
                for table, columns in _existing(connection).items():
                    for column in columns:
                        entries += _renamed(connection, table, column, place, artifacts.as_uri())
                work = (f'"{place.removesuffix("artifacts")}', f'"{artifacts.parent.as_uri()}/')
                connection.execute("UPDATE datasets SET dataset_source = replace(dataset_source, ?, ?)", work)
    except sqlite3.Error as error:
        raise TrackingError(
            f"Expected to write to {database}, got: {error}. Stop what uses it, and call relocate again."
        ) from None
    return Relocated(tuple(places), entries, copied)


def _other_places(database: Path, artifacts: Path) -> list[str]:
    """Addresses of other folders of artifacts that the database names."""
    here, tail = artifacts.as_uri(), f"/{artifacts.parent.name}/{artifacts.name}"
    try:
        with closing(
            sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=_SECONDS)
        ) as connection:
            rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    except sqlite3.Error:
        return []  # no database of MLflow, or locked: whoever opens it says so
    return sorted(
        place
        for (place,) in rows
        if isinstance(place, str) and place.startswith("file:") and place.endswith(tail) and place != here
    )


def _existing(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    known = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return {table: columns for table, columns in _PLACES.items() if table in known}


def _renamed(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> int:
    text = (
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR "
        f"substr({column}, 1, ?) = ?"
    )
    return connection.execute(text, (new, len(old) + 1, old, len(old) + 1, f"{old}/")).rowcount


def _copy_missing(database: Path, place: str, artifacts: Path) -> int:
    """Copy folders of runs and models that are at the old address alone; returns their number."""
    old, copied = Path(url2pathname(urlsplit(place).path)), 0
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=_SECONDS)) as connection:
        tables = {
            table: columns
            for table, columns in _existing(connection).items()
            if table in ("runs", "logged_models")
        }
        rows = [
            row
            for table, (column,) in tables.items()
            for row in connection.execute(f"SELECT {column} FROM {table}")
        ]
    for (address,) in rows:
        if isinstance(address, str) and address.startswith(f"{place}/"):
            inside = url2pathname(address.removeprefix(f"{place}/"))
            if (old / inside).is_dir() and not (artifacts / inside).exists():
                partial = artifacts / f".{Path(inside).parts[-2]}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                shutil.copytree(old / inside, partial)
                (artifacts / inside).parent.mkdir(parents=True, exist_ok=True)
                partial.rename(artifacts / inside)
                copied += 1
    return copied
