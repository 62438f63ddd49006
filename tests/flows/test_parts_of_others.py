"""Undocumented parts of other packages that this one uses: each is still there, in the form that is used.

A failure names the module to mend and what is lost without the part; the table is in docs/architecture.md.
"""

import inspect
import logging
import threading
from importlib import import_module
from pathlib import Path

import prefect.server.database
import pytest
from joblib.externals.loky import ProcessPoolExecutor
from lightning.pytorch import LightningModule
from prefect.runner import Runner

PARTS = [
    ("prefect.server.api.server", "create_app", "serve_once: no server for one run"),
    (
        "prefect.server.database",
        "provide_database_interface",
        "database: no prepared database, 10 s a folder",
    ),
    ("prefect.server.schemas.schedules", "CronSchedule.get_dates", "schedule: no list of next times"),
    ("prefect.events.worker", "EventsWorker.drain_all", "for_one_run: events are lost at the end of a run"),
    ("prefect.logging.handlers", "APILogWorker.drain", "for_one_run: log lines are lost at the end of a run"),
    ("prefect.logging.handlers", "PrefectConsoleHandler", "runtime: Prefect's log lines on the console"),
    ("prefect.runner", "Runner.handle_sigterm", "schedule: a warning when SIGTERM ends a schedule"),
    ("mlflow.store.tracking.sqlalchemy_store", "SqlAlchemyStore", "store: no tracking database"),
    ("mlflow.telemetry", "set_telemetry_client", "store: usage data are sent"),
    ("mlflow.telemetry", "get_telemetry_client", "its test"),
    ("mlflow.system_metrics.metrics.cpu_monitor", "CPUMonitor", "system_metrics: no curves of the processor"),
    ("mlflow.system_metrics.metrics.disk_monitor", "DiskMonitor", "system_metrics: no curves of the disk"),
    ("mlflow.system_metrics.metrics.gpu_monitor", "GPUMonitor", "system_metrics: no curves of the GPU"),
    (
        "mlflow.system_metrics.metrics.network_monitor",
        "NetworkMonitor",
        "system_metrics: no curves of the net",
    ),
    ("torch", "_foreach_lerp_", "training/module: no average of the weights (ema)"),
    ("torch", "_foreach_copy_", "training/cuda_graphs: no recorded steps"),
    ("torch.nn.modules.dropout", "_DropoutNd", "training/batch_compatibility: dropout is not seen"),
    ("torch.nn", "Module._load_from_state_dict", "certificates/scores: no certificates of saved files"),
    ("torch.nn", "Module._compiled_call_impl", "training/trainer: no resume of a compiled training"),
]


@pytest.mark.parametrize(("module", "name", "use"), PARTS, ids=[f"{part[0]}.{part[1]}" for part in PARTS])
def test_the_part_is_there(module: str, name: str, use: str) -> None:
    """The attribute that is used exists."""
    part = import_module(module)
    *owners, last = name.split(".")
    for attribute in owners:
        part = getattr(part, attribute)
    assert hasattr(part, last), f"{module}.{name} is gone. {use}."


def test_a_signal_reaches_the_method_that_is_overridden() -> None:
    """Prefect's runner hands SIGTERM to handle_sigterm; else a schedule would end with a warning."""
    source = inspect.getsource(Runner.start)
    assert "handle_sigterm" in source, (
        "Runner.start sets another handler: see _Runner in pipeline/schedule.py"
    )


def test_migrations_of_prefect_are_where_they_are_looked_for() -> None:
    """A database of a newer Prefect is recognized by the names of migrations; else the server says it."""
    folder = Path(prefect.server.database.__file__).parent / "_migrations" / "versions" / "sqlite"
    assert list(folder.glob("*.py")), (
        f"No migrations in {folder}: see refuse_newer in prefect_server/database.py"
    )


def test_log_lines_of_mlflow_go_through_the_loggers_that_are_filtered() -> None:
    """Else passwords in the address of a store could be shown by MLflow's log."""
    utils = import_module("mlflow.store.db.utils")
    assert utils._logger.name == "mlflow.store.db.utils", "see quiet_log in tracking/failures.py"
    assert logging.getLogger("mlflow").handlers, "MLflow's handler is elsewhere: see tracking/failures.py"
    source = inspect.getsource(utils)
    for text in ("SQLAlchemy engine could not be created", "SQLAlchemy database error"):
        assert text in source, f"MLflow no longer logs {text!r}: see _in_one_line in tracking/failures.py"


def test_a_pool_of_workers_says_that_it_is_broken() -> None:
    """Loky's executor has the flags by which a pool is replaced in place of being asked again."""
    flags = ProcessPoolExecutor(1)._flags  # no process starts before there is work
    assert (flags.broken, flags.shutdown) == (None, False), "see simulators/worker_pool.py"


def test_lightning_still_sets_the_name_of_the_hook_on_its_module() -> None:
    """Some forty times a step, which the module takes a short way for: else steps are only slower."""
    assert "self._current_fx_name" in inspect.getsource(LightningModule), "see training/module.py"


def test_python_still_calls_what_is_registered_before_it_waits_for_threads() -> None:
    """Else a thread that a user's function has left could keep a program for ever."""
    assert hasattr(threading, "_register_atexit"), "see end_in_time in pipeline/runtime.py"
