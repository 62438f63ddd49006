"""An MLflow server with passwords and a Prefect server, both on one temporary PostgreSQL cluster, as a group
of people has them."""

import base64
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from mlflow import MlflowClient
from postgres import Postgres, postgres_cluster
from processes import environment_without, free_port, serving, stop, wait_until

QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
ADMIN, USER = "admin", "michelson"


class MlflowServer:
    """An MLflow server with basic authentication; it can be stopped and started again on its port."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.folder, self.log, self.artifacts = folder, folder / "mlflow.log", folder / "artifacts"
        self.admin_password, self.password = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._running = ExitStack()
        for database in ("mlflow", "mlflow_auth"):
            postgres.query("postgres", f"CREATE DATABASE {database}")
        settings = folder / "auth.ini"
        settings.touch(mode=0o600)
        settings.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = {postgres.url('mlflow_auth')}\n"
            f"admin_username = {ADMIN}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            "auth_cache_ttl_seconds = 60\n"
        )
        self._environment = environment_without(
            **QUIET,
            MLFLOW_BACKEND_STORE_URI=postgres.url("mlflow"),
            MLFLOW_AUTH_CONFIG_PATH=str(settings),
            MLFLOW_AUTH_ADMIN_PASSWORD=self.admin_password,
            MLFLOW_FLASK_SERVER_SECRET_KEY=secrets.token_urlsafe(24),
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        )

    def start(self) -> None:
        """Start the server, without waiting for it."""
        place = ["--host", "127.0.0.1", "--port", self.url.rpartition(":")[2], "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *place]
        command += ["--artifacts-destination", str(self.artifacts)]
        self.process = self._running.enter_context(
            serving(command, self.log, cwd=self.folder, environment=self._environment)
        )

    def wait(self) -> None:
        """Wait until it answers."""
        wait_until(lambda: answers(f"{self.url}/health"), self.process, self.log)

    def stop(self) -> None:
        """Stop it, as a reboot of its machine would."""
        stop(self.process)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        """Stop it for good."""
        self._running.close()

    def add_user(self) -> None:
        """Somebody who is not an administrator."""
        account = {"username": USER, "password": self.password}
        answer = requests.post(
            f"{self.url}/api/2.0/mlflow/users/create",
            json=account,
            auth=(ADMIN, self.admin_password),
            timeout=60,
        )
        answer.raise_for_status()


@dataclass
class Servers:
    """What clients need to know of both servers, and what tests look into."""

    postgres: Postgres
    mlflow: MlflowServer
    prefect_url: str
    prefect_login: str
    logs: Path
    secrets: list[str] = field(default_factory=list)

    def client(self, **more: str) -> dict[str, str]:
        """The environment of a process that uses both servers, as a person sets it."""
        variables = {
            "MLFLOW_TRACKING_URI": self.mlflow.url,
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.mlflow.password,
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_API_AUTH_STRING": self.prefect_login,
        }
        return environment_without(**(variables | more))

    def tracking(self) -> MlflowClient:
        """MLflow's client, as the administrator."""
        scheme, _, place = self.mlflow.url.partition("://")
        return MlflowClient(f"{scheme}://{ADMIN}:{self.mlflow.admin_password}@{place}")

    def prefect(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """What the API of the Prefect server answers."""
        login = tuple(self.prefect_login.split(":"))
        answer = requests.post(f"{self.prefect_url}/api/{path}", json=body, auth=login, timeout=60)  # type: ignore[arg-type]
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """PostgreSQL, MLflow and Prefect for the time of this context; logs are in `folder`."""
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_cluster(folder / "postgres.log"))
        mlflow = MlflowServer(postgres, folder)
        stack.callback(mlflow.close)
        mlflow.start()
        login = f"{USER}:{secrets.token_urlsafe(24)}"
        url, process, log = stack.enter_context(
            prefect_server(folder, login, database=_prefect_database(postgres))
        )
        mlflow.wait()
        mlflow.add_user()
        wait_until(lambda: answers(f"{url}/api/health", login), process, log)
        passwords = [postgres.password, mlflow.admin_password, mlflow.password, login.partition(":")[2]]
        headers = [base64.b64encode(text.encode()).decode() for text in (f"{USER}:{mlflow.password}", login)]
        yield Servers(postgres, mlflow, url, login, folder, [*passwords, *headers])


def _prefect_database(postgres: Postgres) -> str:
    postgres.query("postgres", "CREATE DATABASE prefect")
    return postgres.url("prefect", "asyncpg")


@contextmanager
def prefect_server(folder: Path, login: str = "", database: str = "") -> Iterator[tuple[str, Any, Path]]:
    """A Prefect server that may not answer yet: its address, process and log. Without a database it has
    SQLite in `folder`."""
    url, log, home = f"http://127.0.0.1:{free_port()}", folder / "prefect.log", folder / "prefect"
    home.mkdir()
    more = {"PREFECT_SERVER_API_AUTH_STRING": login} if login else {}
    more |= {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
    environment = environment_without(**QUIET, PREFECT_HOME=str(home), **more)
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        url.rpartition(":")[2],
    ]
    with serving(command, log, cwd=folder, environment=environment) as process:
        yield url, process, log


def answers(url: str, login: str = "") -> bool:
    """Whether a server is there and well."""
    try:
        return requests.get(url, auth=tuple(login.split(":")) if login else None, timeout=5).ok  # type: ignore[arg-type]
    except requests.RequestException:
        return False
