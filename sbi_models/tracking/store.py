"""Tracking store: an SQLite database below `mlruns/`, or the one of MLFLOW_TRACKING_URI."""

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.telemetry import set_telemetry_client
from mlflow.version import VERSION

from sbi_models.empty_databases import give_tables, refuse_folder
from sbi_models.errors import TrackingError
from sbi_models.tracking.failures import tracking_errors
from sbi_models.tracking.mlflow_environment import environment_defaults
from sbi_models.tracking.redaction import redacted
from sbi_models.tracking.relocation import Relocated, refuse_other_place, relocate
from sbi_models.tracking.retries import patiently

EXPERIMENT_KIND = "mlflow.experimentKind"

LEAST_FREE = 20_000_000
"""Bytes that must be free on the disk of a local store before work starts."""


@dataclass(frozen=True)
class Store:
    """A tracking store that is ready for use; made by `open_store`.

    `tracking_uri` is what MLflow calls it, `root` the folder of the project, `artifact_location` where new
    experiments keep their files (None: the server decides), and `local` says whether all of it is an SQLite
    file on this machine. The URI may hold a password.
    """

    tracking_uri: str = field(repr=False)
    root: Path
    artifact_location: str | None
    local: bool

    @property
    def database(self) -> Path | None:
        """The SQLite file of a local store."""
        return _sqlite_path(self.tracking_uri) if self.local else None

    @property
    def client(self) -> MlflowClient:
        """MLflow's client of this store.

        It shares no state with `mlflow.set_tracking_uri` or active runs.
        """
        return patiently(f"open the tracking store {self.tracking_uri}", _client, self.tracking_uri)

    def lock(self) -> AbstractContextManager[object]:
        """Lock of a local store against other processes; not re-entrant."""
        return file_lock(_lock_path(self.database)) if self.database else nullcontext()

    def experiment(self, name: str) -> str:
        """Id of the experiment `name`, which is created on demand.

        Raises:
            TrackingError: if it was deleted.
        """
        experiment = patiently(f"open the experiment {name!r}", self._experiment, name)
        if experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"Expected the experiment {name!r} to be active, got a deleted one. Choose another name, or "
                f"restore it with: mlflow experiments restore --experiment-id {experiment.experiment_id}"
            )
        return str(experiment.experiment_id)

    def _experiment(self, name: str) -> Experiment:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            tags = {
                EXPERIMENT_KIND: "custom_model_development"
            }  # the UI's view for models, not for language agents
            try:
                self.client.create_experiment(name, artifact_location=self.artifact_location, tags=tags)
            except MlflowException:
                experiment = self.client.get_experiment_by_name(name)
                if experiment is None:  # else somebody has just made it
                    raise
            experiment = experiment or self.client.get_experiment_by_name(name)
        return experiment


def open_store(root: Path | str | None = None, *, create: bool = True) -> Store:
    """Open the store of MLFLOW_TRACKING_URI or, without it, `<root>/mlruns/mlflow.db`.

    A local store keeps files in `<root>/mlruns/artifacts`.

    `root` defaults to the current folder. A missing SQLite database is made, once, even if several processes
    ask at the same moment; with `create=False` it is a TrackingError instead. So is one that was moved or
    copied with its project, until `relocate_store` has given it the place where it is now: it names the files
    of runs and models by whole addresses.
    """
    _switch_telemetry_off()
    base = Path(root if root is not None else Path.cwd()).resolve()
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        refuse_folder(base)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{base / 'mlruns' / 'mlflow.db'}"
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme in {"http", "https"}:
        return Store(uri, base, artifact_location=None, local=False)
    if scheme in {"", "file"}:
        raise TrackingError(
            f"Expected MLFLOW_TRACKING_URI to name a database or a server, got {redacted(uri)!r}: MLflow no "
            "longer writes plain folders. Unset it, or use for instance sqlite:////absolute/path/mlflow.db "
            "or http://127.0.0.1:5000."
        )
    if scheme != "sqlite":
        return Store(uri, base, artifact_location=(base / "mlruns" / "artifacts").as_uri(), local=False)
    database = _sqlite_path(uri)
    artifacts = database.parent / "artifacts"
    _prepare(database, artifacts, create=create)
    refuse_other_place(database, artifacts)
    return Store(f"sqlite:///{database}", base, artifact_location=artifacts.as_uri(), local=True)


def relocate_store(root: Path | str | None = None) -> Relocated:
    """Relocate the local store of a project that was moved or copied; `root` as for `open_store`.

    Raises:
        TrackingError: there is none, or it cannot be written.
    """
    base = Path(root if root is not None else Path.cwd()).resolve()
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{base / 'mlruns' / 'mlflow.db'}"
    if urlsplit(uri).scheme.partition("+")[0] != "sqlite":
        raise TrackingError(
            f"Expected a local store to relocate, got {redacted(uri)!r}, which says itself where "
            "its files are."
        )
    database = _sqlite_path(uri)
    _prepare(database, database.parent / "artifacts", create=False)
    with file_lock(_lock_path(database)):
        return relocate(database, database.parent / "artifacts")


def file_lock(path: Path) -> AbstractContextManager[object]:
    """Hold the exclusive lock on `path` (made if missing), which the system frees when its holder dies."""
    return FileLock(path)


def local_path(uri: str) -> Path | None:
    """The path that a file URI (or a plain path) names, else None.

    >>> local_path("file:///tmp/a%20b").as_posix()
    '/tmp/a b'
    >>> local_path("s3://bucket/a") is None
    True
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme else Path(uri)


@cache
def _switch_telemetry_off() -> None:
    """Switch MLflow's telemetry off in this process, unless MLFLOW_DISABLE_TELEMETRY is set.

    MLflow has no switch for one store.
    """
    with environment_defaults({"MLFLOW_DISABLE_TELEMETRY": "true"}):
        set_telemetry_client()


@lru_cache(maxsize=32)
def _client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri)


def _sqlite_path(uri: str) -> Path:
    """The absolute path in an SQLite URI, relative to the current folder as in SQLAlchemy."""
    path = uri.partition(":///")[2].partition("?")[0]
    if path in {"", ":memory:"}:
        raise TrackingError(
            f"Expected an SQLite URI with a file, got {redacted(uri)!r}. Use for instance "
            "sqlite:////absolute/path/mlflow.db."
        )
    return Path(path).resolve()


def _lock_path(database: Path) -> Path:
    return database.with_name(f".{database.name}.lock")


def _is_ready(database: Path) -> bool:
    return database.is_file() and database.stat().st_size > 0


def _prepare(database: Path, artifacts: Path, *, create: bool) -> None:
    """Create the folders and the database of a local store if missing; check that they are writable."""
    try:
        if not _is_ready(database):
            if not create:
                raise TrackingError(
                    f"Expected a tracking database at {database}, got none. Nothing was tracked there yet: "
                    "run a pipeline first, start in the folder that holds mlruns/, or set "
                    "MLFLOW_TRACKING_URI."
                )
            artifacts.mkdir(parents=True, exist_ok=True)
            with file_lock(_lock_path(database)):
                if not _is_ready(database):
                    _initialize(database, artifacts)
        places = [database, database.parent, *([artifacts] if artifacts.exists() else [])]
        closed = [place for place in places if not os.access(place, os.W_OK)]
        free = shutil.disk_usage(database.parent).free
    except OSError as error:
        raise _unwritable(database, error.strerror or str(error)) from error
    if closed:
        raise _unwritable(database, f"permission denied for {closed[0]}")
    if create and free < LEAST_FREE:
        raise TrackingError(
            f"Expected at least {LEAST_FREE // 10**6} MB free on the disk of {database.parent}, got "
            f"{free / 1e6:.1f} MB. Free space, or choose another root folder."
        )


def _initialize(database: Path, artifacts: Path) -> None:
    """Build the database in a temporary file, and move it into place when it is complete."""
    fresh = database.with_name(f"{database.name}.new")
    fresh.unlink(missing_ok=True)
    with tracking_errors(f"make the tracking database {database}"), _without_lines_of_migrations():
        give_tables(fresh, f"mlflow-{VERSION}", lambda: _make_tables(fresh))
        SqlAlchemyStore(
            f"sqlite:///{fresh}", artifacts.as_uri()
        ).engine.dispose()  # which adds the default experiment
    with closing(sqlite3.connect(fresh)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # writers then wait for each other a third as long
    fresh.replace(database)


@contextmanager
def _without_lines_of_migrations() -> Iterator[None]:
    logger = logging.getLogger("alembic")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _make_tables(database: Path) -> None:
    """MLflow's tables, without the default experiment, which has the place of the artifacts."""
    SqlAlchemyStore(f"sqlite:///{database}", database.with_name("artifacts").as_uri()).engine.dispose()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM experiments")


def _unwritable(database: Path, reason: str) -> TrackingError:
    return TrackingError(
        f"Expected a tracking database at {database} that can be written, got: {reason}. Choose another "
        "root folder, or set MLFLOW_TRACKING_URI to a database or a server."
    )
