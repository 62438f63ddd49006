"""How to start MLflow's server of one registered model."""

import os
import sys

from sbi_models.errors import ConfigurationError
from sbi_models.tracking.environment import DEFAULTS
from sbi_models.tracking.store import Store
from sbi_models.tracking.ui import with_scripts


def serve_command(uri: str, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command line of a server that answers for the registered model `uri`; run it with the variables of `serve_environment(store)`.

    It runs in this Python, which has all packages that the model needs. The server has no passwords.
    """
    if not 0 < port < 65536:
        raise ConfigurationError(f"Expected a port from 1 to 65535, got {port}.")
    model = ["--model-uri", uri, "--env-manager", "local"]
    return [sys.executable, "-m", "mlflow", "models", "serve", *model, "--host", host, "--port", str(port)]


def serve_environment(store: Store) -> dict[str, str]:
    """The whole environment for `serve_command`: this process's, quiet, with the address of the store, and this Python's scripts."""
    return {**DEFAULTS, **os.environ, "MLFLOW_TRACKING_URI": store.tracking_uri, "PATH": with_scripts()}
