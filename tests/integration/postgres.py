"""A temporary PostgreSQL cluster on a free loopback port, with a password."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from processes import free_port, serving, stop, wait_until

USER = "sbi"
INSTALL = "apt-get install --yes postgresql  (or put initdb and postgres on PATH)"


@dataclass(frozen=True)
class Postgres:
    """A cluster that runs: its port, and the password of its superuser."""

    port: int
    password: str

    def url(self, database: str, driver: str = "psycopg2") -> str:
        """The address of a database as SQLAlchemy wants it."""
        return f"postgresql+{driver}://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def query(self, database: str, statement: str) -> list[tuple[object, ...]]:
        """The rows of a statement; each is its own transaction."""
        with closing(
            psycopg2.connect(
                host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname=database
            )
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def everything(self, database: str) -> str:
        """Every row of every table of a database as text."""
        tables = self.query(database, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return "\n".join(
            str(row[0])
            for (table,) in tables
            for row in self.query(database, f'SELECT t::text FROM "{table}" t')
        )


@contextmanager
def postgres_cluster(log: Path) -> Iterator[Postgres]:
    """A cluster for the time of this context. Its files are in a folder of their own below /tmp, which its
    user can reach."""
    postgres = Postgres(free_port(), secrets.token_urlsafe(24))
    folder = Path(tempfile.mkdtemp(prefix="sbi-postgres-"))
    try:
        data, password = folder / "data", folder / "password"
        password.write_text(postgres.password)
        _give_away(folder, password)
        options = [
            "--username",
            USER,
            "--auth",
            "scram-sha-256",
            "--pwfile",
            str(password),
            "--encoding",
            "UTF8",
            "--no-sync",
        ]
        initdb = [*_as_user(), _binary("initdb"), "--pgdata", str(data), *options]
        done = subprocess.run(initdb, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        command = [
            *_as_user(),
            _binary("postgres"),
            "-D",
            str(data),
            "-p",
            str(postgres.port),
            "-k",
            str(folder),
            "-c",
            "fsync=off",
        ]
        with serving(
            [*command, "-c", "listen_addresses=127.0.0.1"], log, cwd=folder, environment=dict(os.environ)
        ) as process:
            wait_until(lambda: _answers(postgres), process, log, 60)
            try:
                yield postgres
            finally:
                stop(process, signal.SIGINT)  # at once: SIGTERM waits for clients
    finally:
        shutil.rmtree(folder)


def _answers(postgres: Postgres) -> bool:
    try:
        return postgres.query("postgres", "SELECT 1") == [(1,)]
    except psycopg2.OperationalError:
        return False


def _binary(name: str) -> str:
    """Where a program of PostgreSQL is: on PATH, or the newest that Debian has installed. Fails where there
    is none."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    path = shutil.which(name) or (str(found[-1]) if found else None)
    if path is None:
        pytest.fail(f"Expected PostgreSQL's {name}, found none. Install it: {INSTALL}")
    return path


def _user() -> "pwd.struct_passwd | None":
    """The user whom a cluster belongs to where this process is root, as which PostgreSQL does not run."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _give_away(*paths: Path) -> None:
    user = _user()
    if user is not None:
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def _as_user() -> list[str]:
    """The start of a command line that gives up root."""
    user = _user()
    if user is None:
        return []
    if shutil.which("setpriv") is None:
        pytest.fail(
            f"PostgreSQL does not run as root, and {sys.platform} has no setpriv here. Install "
            "util-linux, or run as another user."
        )
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--pdeathsig=INT",
    ]
