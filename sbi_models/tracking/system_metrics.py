"""System metrics of a run: processor, memory, disk, network and GPU of the machine."""

import logging
import os
import threading
from importlib import import_module
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from sbi_models.tracking.live_metrics import LiveMetrics

VARIABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
PREFIX = "system/"
INTERVAL = 10.0
"""Seconds between two samples."""

_SENSORS = (
    ("cpu_monitor", "CPUMonitor"),
    ("disk_monitor", "DiskMonitor"),
    ("network_monitor", "NetworkMonitor"),
    ("gpu_monitor", "GPUMonitor"),
)
"""Module and class of MLflow's sensors, which it does not document: one that is gone is left out."""

_logger = logging.getLogger(__name__)


class SystemMetrics:
    """Background thread that samples the machine every `INTERVAL` seconds.

    Points go through `LiveMetrics`, so that a store that is away ends nothing.

    The sensors are MLflow's. Its own monitor is not used: it stops for good at the first call that fails. A
    run that was opened again goes on with its next step.
    """

    def __init__(self, client: MlflowClient, run: Run) -> None:
        known = sorted(name for name in run.data.metrics if name.startswith(PREFIX))
        history = client.get_metric_history(run.info.run_id, known[0]) if known else []
        self._step = max((point.step for point in history), default=-1) + 1
        self._live = LiveMetrics(client, run.info.run_id, level=logging.DEBUG)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample, unless MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false."""
        if os.environ.get(VARIABLE, "true").lower() not in {"false", "0"}:
            self._thread = threading.Thread(
                target=self._watch, daemon=True, name=f"system metrics {self._step}"
            )
            self._thread.start()

    def ask_to_stop(self) -> None:
        """End the thread soon; returns at once."""
        self._stop.set()

    def finish(self) -> None:
        """End the thread and write what it has, if the store is there; raises nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=INTERVAL)
            self._live.try_flush()
            self._live.close()

    def _watch(self) -> None:
        sensors = [sensor for module, name in _SENSORS if (sensor := _sensor(module, name)) is not None]
        while not self._stop.wait(INTERVAL):
            values = {f"{PREFIX}{name}": value for sensor in sensors for name, value in _read(sensor).items()}
            self._live.add(self._step, values)
            self._step += 1


def _sensor(module: str, name: str) -> Any | None:
    """A sensor of MLflow's; None where the machine has nothing to measure with it, such as no GPU."""
    try:
        return getattr(import_module(f"mlflow.system_metrics.metrics.{module}"), name)()
    except Exception as error:  # noqa: BLE001 - whatever a driver raises, the run goes on without this sensor
        _logger.debug("No %s: %s", name, error)
        return None


def _read(sensor: Any) -> dict[str, float]:
    try:
        sensor.collect_metrics()
        values = dict(sensor.aggregate_metrics())
        sensor.clear_metrics()
    except Exception as error:  # noqa: BLE001 - see above
        _logger.debug("%s cannot be read: %s", sensor, error)
        return {}
    return values
