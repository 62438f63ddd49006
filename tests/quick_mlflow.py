"""What MLflow works out anew for each store and each model, though it is the same for a whole process."""

from functools import cache

from mlflow.store.db import utils
from mlflow.utils import requirements_utils


def keep_what_does_not_change() -> None:
    """Let MLflow read its migrations, and compare the installed packages with a requirement, once.

    They take a tenth of a second each, and more than half of a small test of a store.
    """
    for module, name in (
        (utils, "_get_latest_schema_revision"),
        (requirements_utils, "_check_requirement_satisfied"),
    ):
        if not hasattr(getattr(module, name), "cache_info"):
            setattr(module, name, cache(getattr(module, name)))
