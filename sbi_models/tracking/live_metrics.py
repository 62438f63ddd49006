"""Metrics logged during a training by a background thread."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from mlflow import MlflowClient
from mlflow.entities import Metric

from sbi_models.errors import TrackingError
from sbi_models.tracking.failures import tracking_errors
from sbi_models.tracking.retries import patiently

INTERVAL = 2.0
"""Seconds that a point may wait before it is written."""

LONGEST_INTERVAL = 60.0
"""Seconds between two writes while the store is away."""

BATCH = 1000
"""How many points MLflow takes in one call."""

_logger = logging.getLogger(__name__)

Point = tuple[str, int]


class LiveMetrics:
    """Buffer of (metric, step, value) points of a run, written in the background every `INTERVAL` seconds.

    A point whose (metric, step) the run already has, from this life or an earlier one, is dropped; those of
    earlier lives are read by `read_known` before the first write. A write that fails is tried again later,
    with one warning for as long as it goes on failing: a store that is away must not end a training. A point
    keeps its time stamp, and MLflow drops an equal one, so that a write whose answer was lost doubles
    nothing. Only `flush` waits for the store, and raises.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        *,
        read_known: Callable[[], set[Point]] = set,
        level: int = logging.WARNING,
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._read_known = read_known
        self._level = level
        self._earlier: set[Point] | None = None
        self._queued: set[Point] = set()
        self._pending: list[Metric] = []
        self._timer: threading.Timer | None = None
        self._last_write = float("-inf")
        self._failures = 0
        self._state = threading.Lock()
        self._writing = threading.Lock()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the values of one step; returns at once."""
        with self._state:
            fresh = [point for point in points(step, values) if (point.key, step) not in self._queued]
            self._pending += fresh
            self._queued.update((point.key, step) for point in fresh)
            self._schedule()

    def flush(self) -> None:
        """Write the queue now, waiting for a store that is away.

        Raises:
            TrackingError: if that fails; the points are kept.
        """
        patiently(f"log metrics to run {self._run_id}", self._write)

    def try_flush(self) -> None:
        """Write what is queued now if the store is there; otherwise warn, once, and keep the points."""
        try:
            with tracking_errors(f"log metrics to run {self._run_id}"):
                self._write()
        except TrackingError as error:
            self._failures += 1
            if self._failures == 1:
                _logger.log(self._level, "%s The points are kept and tried again.", error)

    def close(self) -> None:
        """Give up what could not be written."""
        with self._state:
            self._pending = []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _write(self) -> None:
        with self._writing:
            with self._state:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                queued, self._pending = self._pending, []
            try:
                if self._earlier is None:
                    self._earlier = self._read_known()
                queued = [point for point in queued if (point.key, point.step) not in self._earlier]
                while queued:
                    self._client.log_batch(self._run_id, metrics=queued[:BATCH])
                    del queued[:BATCH]
                self._failures = 0
            finally:
                with self._state:
                    self._pending = queued + self._pending
                    self._last_write = time.monotonic()

    def _schedule(self) -> None:
        """Start the timer of the next write if one is needed; `_state` is held."""
        if self._pending and self._timer is None:
            interval = min(INTERVAL * 2 ** min(self._failures, 10), max(LONGEST_INTERVAL, INTERVAL))
            wait = max(0.0, self._last_write + interval - time.monotonic())
            self._timer = threading.Timer(wait, self._flush_from_timer)
            self._timer.daemon = True
            self._timer.start()

    def _flush_from_timer(self) -> None:
        self.try_flush()
        with self._state:
            self._schedule()


def points(step: int, values: Mapping[str, float]) -> list[Metric]:
    """The values of one step as MLflow keeps them, stamped with the time of now."""
    now = int(time.time() * 1000)
    return [Metric(name, float(value), now, step) for name, value in values.items()]


def write_points(client: MlflowClient, run_id: str, written: Sequence[Metric]) -> None:
    """Write points in calls of at most `BATCH`, waiting for a store that is away."""
    for begin in range(0, len(written), BATCH):
        patiently(
            f"log metrics to run {run_id}", client.log_batch, run_id, metrics=written[begin : begin + BATCH]
        )


def known_points(client: MlflowClient, run_id: str, names: Sequence[str]) -> set[Point]:
    """Every (metric, step) that the run already has."""
    return {(point.key, point.step) for name in names for point in client.get_metric_history(run_id, name)}
