"""Databases with tables and nothing in them: kept for the user, and copied into each new folder."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sbi_models.empty_databases import give_tables
from sbi_models.tracking import open_store, store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is kept for the user."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sbi_models"


def dump(database: Path) -> list[str]:
    """All tables and rows, as SQL."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


def make(database: Path) -> None:
    """One with a table and no rows, and a log, as Prefect's have one."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE runs (name TEXT)")


def test_a_second_folder_gets_a_copy(tmp_path: Path, cache: Path) -> None:
    """It is the same, and nothing is made; rows that come into the first later do not get into it."""
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    give_tables(first, "maker-1", lambda: make(first))
    expected = dump(first)
    with closing(sqlite3.connect(first)) as connection, connection:
        connection.execute("INSERT INTO runs VALUES ('mine')")
    give_tables(second, "maker-1", lambda: pytest.fail("it is made again"))
    assert dump(second) == expected
    assert [path.name for path in cache.iterdir()] == ["maker-1.db"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.db", "cache"]


def test_each_version_has_its_own(tmp_path: Path, cache: Path) -> None:
    """Tables of another version are not taken."""
    for number in (1, 2):
        database = tmp_path / f"{number}.db"
        give_tables(database, f"maker-{number}", lambda database=database: make(database))  # type: ignore[misc]
    assert sorted(path.name for path in cache.iterdir()) == ["maker-1.db", "maker-2.db"]


def test_a_damaged_one_is_made_again(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no database is told, and replaced by a new one."""
    cache.mkdir(parents=True)
    (cache / "maker-1.db").write_bytes(b"no database" * 1000)
    database = tmp_path / "a.db"
    give_tables(database, "maker-1", lambda: make(database))
    assert "file is not a database" in caplog.text
    assert dump(database) == dump(cache / "maker-1.db")
    assert any("CREATE TABLE runs" in line for line in dump(database))


def test_without_a_folder_for_it_each_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That nothing can be kept is told, and no reason not to work."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for name in ("a.db", "b.db"):
        database = tmp_path / name
        give_tables(database, "maker-1", lambda database=database: make(database))  # type: ignore[misc]
        assert any("CREATE TABLE runs" in line for line in dump(database))
        assert "each new folder waits" in caplog.text
        caplog.clear()


@pytest.mark.nightly
def test_a_copied_tracking_store_is_a_made_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of a second folder has the tables and rows of the first, but for times and the place of its
    artifacts."""
    monkeypatch.chdir(tmp_path)
    stores = [open_store(tmp_path / "first")]
    monkeypatch.setattr(store, "_make_tables", lambda database: pytest.fail("its tables are made"))
    stores.append(open_store(tmp_path / "second"))
    contents = []
    for opened in stores:
        assert opened.database is not None
        (default,) = opened.client.search_experiments()
        assert default.artifact_location == (opened.root / "mlruns" / "artifacts" / "0").as_uri()
        lines = dump(opened.database)
        contents.append(sorted(line for line in lines if not line.startswith('INSERT INTO "experiments"')))
    assert contents[0] == contents[1]
    assert any("CREATE TABLE" in line for line in contents[0])
