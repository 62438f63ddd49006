"""Metrics that show while a model trains, without making the training wait for the database."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric

from sbi_models.errors import TrackingError
from sbi_models.tracking.store import tracking_errors

INTERVAL = 2.0
"""Seconds that a point may wait before it is written."""

BATCH = 1000
"""How many points MLflow takes in one call."""

_logger = logging.getLogger(__name__)


class LiveMetrics:
    """A buffer of (metric, step, value) points of one run that a background timer empties every `INTERVAL` seconds.

    A point whose (metric, step) the run already has, from this life or an earlier one, is dropped. A write that fails is tried again
    with the next one, with a warning: a busy database must not end a training. Only `flush` raises.
    """

    def __init__(self, client: MlflowClient, run_id: str, *, known: set[tuple[str, int]]) -> None:
        self._client = client
        self._run_id = run_id
        self._known = known
        self._pending: list[Metric] = []
        self._timer: threading.Timer | None = None
        self._last_write = float("-inf")
        self._state = threading.Lock()
        self._writing = threading.Lock()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the values of one step; returns at once."""
        with self._state:
            fresh = [point for point in points(step, values) if (point.key, step) not in self._known]
            self._pending += fresh
            self._known.update((point.key, step) for point in fresh)
            if self._pending and self._timer is None:
                wait = max(0.0, self._last_write + INTERVAL - time.monotonic())
                self._timer = threading.Timer(wait, self._flush_from_timer)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what is queued now; raises TrackingError and keeps the points if that fails."""
        with self._writing:
            with self._state:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                queued, self._pending = self._pending, []
            try:
                while queued:
                    write_points(self._client, self._run_id, queued[:BATCH])
                    del queued[:BATCH]
            finally:
                with self._state:
                    self._pending = queued + self._pending
                    self._last_write = time.monotonic()

    def _flush_from_timer(self) -> None:
        try:
            self.flush()
        except TrackingError as error:
            _logger.warning("%s (tried again with the next epoch)", error)


def points(step: int, values: Mapping[str, float]) -> list[Metric]:
    """The values of one step as MLflow keeps them, stamped with the time of now."""
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value in values.items()]


def write_points(client: MlflowClient, run_id: str, batch: Sequence[Metric]) -> None:
    """One call that writes at most `BATCH` points."""
    with tracking_errors(f"log metrics to run {run_id}"):
        client.log_batch(run_id, metrics=batch)


def known_points(client: MlflowClient, run_id: str, names: list[str]) -> set[tuple[str, int]]:
    """Every (metric, step) that the run already has."""
    with tracking_errors(f"read the metrics of run {run_id}"):
        return {(point.key, point.step) for name in names for point in client.get_metric_history(run_id, name)}
