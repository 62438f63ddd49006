"""What MLflow reads from the environment while it is imported: silent, without telemetry and retries, unless
the user says otherwise."""

import os

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # `patience.patiently` tries again, and says so
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare_environment() -> None:
    """Set each of `DEFAULTS` that is not set yet; child processes inherit them."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
