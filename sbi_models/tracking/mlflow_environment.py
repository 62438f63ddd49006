"""MLflow's environment variables in runs of this package: quiet, without telemetry and silent retries."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # `retries.patiently` tries again, and says so
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextmanager
def environment_defaults(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that are not set yet, for the time of this context.

    Processes that are started meanwhile inherit them.
    """
    missing = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name, value in missing.items():
            if os.environ.get(name) == value:
                del os.environ[name]
