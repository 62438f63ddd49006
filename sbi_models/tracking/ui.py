"""Command line and environment of MLflow's UI, for this machine only."""

import ipaddress
import os
import sys

from sbi_models.errors import ConfigurationError, TrackingError
from sbi_models.tracking.mlflow_environment import DEFAULTS
from sbi_models.tracking.redaction import redacted
from sbi_models.tracking.retries import patiently
from sbi_models.tracking.store import Store, local_path


def ui_command(store: Store, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command line of an MLflow server on `store`; run it with the variables of `ui_environment(store)`.

    One worker: two processes and 0.5 GB, where MLflow's own choice is fifteen and 3 GB. The server has no
    passwords, hence only loopback addresses are accepted as `host`.
    """
    if is_server(store):
        raise TrackingError(
            f"The tracking store is a server already: open {redacted(store.tracking_uri)} in a browser."
        )
    if not _is_loopback(host):
        raise ConfigurationError(
            f"Expected a loopback host such as 127.0.0.1, got {host!r}: the pages have no passwords. To "
            f"look at them from another machine, forward the port: ssh -L {port}:127.0.0.1:{port} <this "
            "machine>."
        )
    if not 0 < port < 65536:
        raise ConfigurationError(f"Expected a port from 1 to 65535, got {port}.")
    command = [sys.executable, "-m", "mlflow", "server"]
    if not _has_password(store):
        command += ["--backend-store-uri", store.tracking_uri]
    artifacts = local_path(store.artifact_location) if store.artifact_location else None
    if artifacts is not None:
        command += ["--artifacts-destination", str(artifacts)]
    return [*command, "--workers", "1", "--host", host, "--port", str(port)]


def run_page(store: Store, run_id: str) -> str | None:
    """URL of the page of a run, without a password, where the store is a server; else None."""
    if not is_server(store):
        return None
    experiment = patiently(f"find the run {run_id!r}", store.client.get_run, run_id).info.experiment_id
    return f"{redacted(store.tracking_uri).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def is_server(store: Store) -> bool:
    """Whether the store is an MLflow server, which has pages of its own."""
    return store.tracking_uri.startswith(("http:", "https:"))


def ui_environment(store: Store) -> dict[str, str]:
    """Environment for `ui_command`: quiet, without job runners, with this Python's scripts on the path.

    It also holds the address of a database with a password, which every user of the machine could read in a
    command line.
    """
    return {
        **DEFAULTS,
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": with_scripts(),
        **_address(store),
    }


def with_scripts() -> str:
    """The search path of programs, with those of this Python first."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


def _has_password(store: Store) -> bool:
    return redacted(store.tracking_uri) != store.tracking_uri


def _address(store: Store) -> dict[str, str]:
    return {"MLFLOW_BACKEND_STORE_URI": store.tracking_uri} if _has_password(store) else {}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
