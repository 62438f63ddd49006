"""Engines for Prefect tasks: threads, processes, or a dask cluster."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import Task

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Engine
from sbi_models.progress import progress_bar

ATTEMPTS = 3
"""How often work is spread that workers died of, without any of it being finished meanwhile."""


_SECONDS_OF_A_CLUSTER = 30
"""For a scheduler to answer."""


def num_workers(engine: Engine) -> int:
    """Workers of an engine on this machine; of a cluster with an address nothing is known."""
    return engine.workers or len(os.sched_getaffinity(0))


def task_runner(engine: Engine, num_tasks: int) -> TaskRunner[Any]:
    """Prefect's runner for an engine, with no more workers than there are tasks.

    Raises:
        ConfigurationError: for dask, if prefect-dask is not installed.
    """
    workers = min(num_workers(engine), num_tasks)
    if engine.kind == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if engine.kind == "processes":
        return ProcessPoolTaskRunner(max_workers=workers)
    try:
        from prefect_dask import DaskTaskRunner  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigurationError(
            "The engine dask needs another package: pip install 'sbi-models[dask]'. Or choose processes."
        ) from None
    if engine.address is not None:
        runner: TaskRunner[Any] = DaskTaskRunner(address=engine.address)
    else:
        runner = DaskTaskRunner(
            cluster_kwargs={"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        )
    return runner


def spread(
    task: "Task[..., Any]",
    calls: Sequence[Mapping[str, Any]],
    engine: Engine,
    name: str,
    weights: Sequence[int] = (),
    *,
    folder: Path | None = None,
) -> int:
    """Run a task once with each of some keyword arguments; the number of runs lost to dead workers.

    Args:
        task: its results are on disk when it ends.
        calls: keyword arguments of each run.
        engine: where to run.
        name: name of the flow that has these runs, and of the progress bar.
        weights: what each run counts for in the progress bar.
        folder: folder that workers must share, which those of a cluster with an address are asked about.

    Raises:
        Exception: what a run has raised, such as SimulationError.
        ConfigurationError: if workers do not share the folder, or no cluster is at the address.
    """
    if engine.address is not None and folder is not None:
        refuse_other_folders(engine.address, folder)
    weights = weights or [1] * len(calls)
    errors: list[Exception | None] = []

    @flow(
        name=name,
        task_runner=task_runner(engine, len(calls)),
        persist_result=False,
        validate_parameters=False,
    )
    def runs() -> None:
        futures = [task.submit(**call) for call in calls]
        with progress_bar(name, sum(weights)) as advance:
            for future, weight in zip(futures, weights, strict=True):
                errors.append(_error_of(future))
                advance(weight)

    # Prefect waits a second at the end of each flow for the thread of its heartbeat; the flow around this one
    # has one.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), _quiet_dask():
        runs()
    failed = [error for error in errors if error is not None]
    for error in failed:
        if not _is_a_death(error):
            raise error
    return len(failed)


def refuse_other_folders(address: str, folder: Path) -> None:
    """Raise ConfigurationError if workers of a dask cluster do not share a folder, or none answers."""
    try:
        from distributed import Client  # noqa: PLC0415 - an extra
    except ImportError:
        return  # `task_runner` tells
    probe = folder / f".probe-{uuid4().hex}"
    try:
        with closing(Client(address, timeout=_SECONDS_OF_A_CLUSTER)) as client:
            probe.touch()
            sees: dict[str, bool] = client.run(_sees, str(probe))
    except OSError as error:
        raise ConfigurationError(
            f"Expected a dask scheduler at {address}, got: {error}. Start it, or mend engine.address."
        ) from None
    finally:
        probe.unlink(missing_ok=True)
    if blind := sorted(worker for worker, seen in sees.items() if not seen):
        raise ConfigurationError(
            f"Expected workers that share the folder {folder}, got {len(blind)} of {len(sees)} that do not "
            "see a file that was just made there: "
            f"{', '.join(blind[:3])}{', ...' if len(blind) > 3 else ''}. Mount it on their machines in the "
            "same place."
        )


def _sees(path: str) -> bool:
    """On a worker: whether a file is there, after a moment for file systems that need one."""
    for _ in range(5):
        if os.path.exists(path):
            return True
        time.sleep(0.2)
    return False


def _error_of(future: PrefectFuture[Any]) -> Exception | None:
    """What a run has ended with, if not well."""
    try:
        future.result()
    except Exception as error:  # noqa: BLE001 - whatever a user's function raises, or a pool whose worker is gone
        return error
    return None


def _is_a_death(error: Exception) -> bool:
    """Whether an error says that a worker is gone: BrokenProcessPool, or dask's KilledWorker and the like."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        names
        & {
            "BrokenExecutor",
            "CrashedRun",
            "KilledWorker",
            "CommClosedError",
            "FutureCancelledError",
            "CancelledError",
        }
    )


@contextmanager
def _quiet_dask() -> Any:
    """Without what dask says of workers that come and go."""
    loggers = [
        logging.getLogger(name)
        for name in ("distributed", "distributed.nanny", "distributed.worker", "distributed.scheduler")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
