"""Only the database of a local server that has none is prepared."""

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME, temporary_settings

from sbi_models.pipeline.prefect_server import database as prefect_database

OTHER = "postgresql+asyncpg://host/runs"


@pytest.mark.parametrize(
    ("there", "url", "prepared"), [(False, None, True), (True, None, False), (False, OTHER, False)]
)
def test_what_is_there_or_elsewhere_is_left(
    there: bool, url: str | None, prepared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in Prefect's folder that is there, and another database, are Prefect's own business."""
    asked = []
    monkeypatch.setattr(prefect_database, "give_tables", lambda database, name, make: asked.append(database))
    database = tmp_path / "prefect.db"
    if there:
        database.touch()
    with temporary_settings(
        {
            PREFECT_HOME: tmp_path,
            PREFECT_API_DATABASE_CONNECTION_URL: url or f"sqlite+aiosqlite:///{database}",
        }
    ):
        prefect_database.prepare_database()
    assert asked == ([database] if prepared else [])
