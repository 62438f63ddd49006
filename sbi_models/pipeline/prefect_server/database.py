"""The database of a local Prefect server, made before the server starts."""

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import prefect
import prefect.server.database
from prefect.server.database import provide_database_interface
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME

from sbi_models.empty_databases import give_tables
from sbi_models.errors import TrackingError

_REVISION = re.compile(r"""^revision\b[^=\n]*=\s*["'](\w+)["']""", re.MULTILINE)
"""How a migration names itself."""


def prepare_database() -> None:
    """Give the server of this process, which starts next, its tables, if it has no database.

    A database that is there is left as it is, and so is another than the file in Prefect's folder.

    Raises:
        TrackingError: if it is of a newer Prefect, which this one cannot read.
    """
    database = PREFECT_HOME.value() / "prefect.db"
    if PREFECT_API_DATABASE_CONNECTION_URL.value() != f"sqlite+aiosqlite:///{database}":
        return
    if database.exists():
        refuse_newer(database)
    else:
        database.parent.mkdir(parents=True, exist_ok=True)
        give_tables(
            database,
            f"prefect-{prefect.__version__}",
            lambda: asyncio.run(provide_database_interface().create_db()),
        )


def refuse_newer(database: Path) -> None:
    """Raise TrackingError if the tables of a database are of a migration that this Prefect does not have."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            revisions = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.Error:  # no tables yet, or somebody makes them: Prefect itself says what is wrong
        return
    folder = Path(prefect.server.database.__file__).parent / "_migrations" / "versions" / "sqlite"
    known = {
        match[1]
        for path in folder.glob("*.py")
        for match in _REVISION.finditer(path.read_text(encoding="utf-8"))
    }
    if known and not known.issuperset(revisions):
        raise TrackingError(
            f"Expected a database of Prefect {prefect.__version__} or older at {database}, got one of a "
            "newer version. Install that one again (pip install --upgrade prefect), or move the file away: "
            "it holds Prefect's own history of runs, and no results."
        )
