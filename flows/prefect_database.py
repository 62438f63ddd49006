"""The database of a local Prefect server, made before the server starts."""

import asyncio

import prefect
from prefect.server.database import provide_database_interface
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME

from sbi_models.empty_databases import give_tables


def prepare_database() -> None:
    """Give the server of this process, which starts next, its tables, if it has no database.

    A database that is there is left as it is, of whatever version, and so is another than the file in Prefect's folder.
    """
    database = PREFECT_HOME.value() / "prefect.db"
    if PREFECT_API_DATABASE_CONNECTION_URL.value() == f"sqlite+aiosqlite:///{database}" and not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        give_tables(database, f"prefect-{prefect.__version__}", lambda: asyncio.run(provide_database_interface().create_db()))
