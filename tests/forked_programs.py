"""Programs in processes that are forked from one that has imported everything, which takes seconds each time.

The fork server is that of multiprocessing. It runs none of the code of a program, so each begins as a new one
does, with an environment, a folder and files for its output of its own.
"""

import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from unittest import mock

from sbi_models.pipeline.runtime import program_environment

IMPORTED = [
    *("alembic.command", "matplotlib.backends.backend_agg", "pyarrow.parquet"),
    *("mlflow.store.model_registry.sqlalchemy_store", "mlflow.system_metrics.metrics.cpu_monitor"),
    *("prefect.flow_engine", "prefect.task_engine", "prefect.utilities.visualization"),
    *("sbi_models.diagnostics.plots", "sbi_models.pipeline.flows", "sbi_models.pipeline.report.html"),
    "sbi_models.training.trainer",
]
"""Modules that programs need, with all that they import."""


def plain_environment() -> dict[str, str]:
    """The environment of this process without what it says of the engines."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


@cache
def prefect_home() -> Path:
    """A folder of Prefect for the programs of this process, in place of that of the user."""
    return Path(tempfile.mkdtemp(prefix="prefect-"))


def remove_prefect_home() -> None:
    """Remove that folder, if there is one."""
    if prefect_home.cache_info().currsize:
        shutil.rmtree(prefect_home())


@cache
def _fork_server() -> ForkServerContext:
    """The server, started with the variables that Prefect and MLflow read when they are imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    own_home = plain_environment() | {"PREFECT_HOME": str(prefect_home())}
    with mock.patch.dict(os.environ, own_home, clear=True), program_environment():
        ensure_running()
    return context


def start_forked(script: Path, words: list[str], *, folder: Path, **environment: str) -> ForkServerProcess:
    """Run `python SCRIPT WORDS...` in a folder, without the time that its imports take.

    Args:
        script: file of the program.
        words: its arguments.
        folder: current folder of the program, where the files `screen.txt` and `errors.txt` get its output.
        environment: environment variables beside the plain ones.
    """
    variables = plain_environment() | environment
    process = _fork_server().Process(target=_run, args=(script, words, folder, variables))
    process.start()
    return process


def _run(script: Path, words: list[str], folder: Path, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for name, number in (("screen", 1), ("errors", 2)):
        file = os.open(f"{name}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    from prefect.context import refresh_global_settings_context  # noqa: PLC0415 - only a forked process has it

    refresh_global_settings_context()
    sys.argv = [str(script), *words]
    sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")
