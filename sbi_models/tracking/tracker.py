"""One MLflow run per run of a pipeline: parameters, live curves, figures, tables, data sets."""

import json
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol, Self

import pandas as pd
from mlflow.entities import Param, Run, RunStatus, RunTag

from sbi_models.errors import ConfigurationError
from sbi_models.tracking.datasets import dataset_input
from sbi_models.tracking.failures import tracking_errors
from sbi_models.tracking.live_metrics import LiveMetrics, known_points, points, write_points
from sbi_models.tracking.names import keys_of
from sbi_models.tracking.provenance import owner_is_alive, provenance_tags
from sbi_models.tracking.redaction import redacted, redacted_content, redacted_setting
from sbi_models.tracking.retries import patiently
from sbi_models.tracking.run_environment import environment_files
from sbi_models.tracking.store import Store, local_path
from sbi_models.tracking.system_metrics import PREFIX, SystemMetrics
from sbi_models.types import Array

KEY_TAG = "sbi_models.key"
PARENT_TAG = "mlflow.parentRunId"
PARAMS_PER_CALL, TAGS_PER_CALL = 100, 100


class Figure(Protocol):
    """Anything that can save itself as a picture, such as a Matplotlib figure."""

    def savefig(self, fname: Any, *, dpi: Any = ...) -> object: ...


class Tracker:
    """Writer of one MLflow run, made by `start` or `attach`.

    As a context manager it finishes the run as FINISHED, FAILED or KILLED.

    It names its run in every call and never touches MLflow's global active run, so trackers of several
    threads do not meet. Every call waits for a store that is away (see `patience`), and does nothing new when
    it is made again. Passwords and tokens are not written.
    """

    def __init__(self, store: Store, run: Run, *, reopened: bool) -> None:
        self.store = store
        self.reopened = reopened
        self._client = store.client
        self._run, self._info = run, run.info
        self._metric_names = sorted(name for name in run.data.metrics if not name.startswith(PREFIX))
        self._folder = Path.cwd()
        self._live: LiveMetrics | None = None
        self._system: SystemMetrics | None = None

    @classmethod
    def start(
        cls,
        store: Store,
        experiment_name: str,
        run_name: str,
        key: str,
        params: Mapping[str, Any] | None = None,
        *,
        tags: Mapping[str, Any] | None = None,
        folder: Path | str | None = None,
    ) -> Self:
        """Open the run of the pipeline that `key` (a hash of its configuration) stands for.

        An unfinished run with this key, left by a process that was killed or failed, is opened again;
        otherwise a run is made. `params` may be nested (`{"training": {"epochs": 3}}` is logged as
        `training.epochs`); those that a re-opened run already has stay as they are. The commit of the run is
        that of `folder`, where the user's code is; None is the current one.
        """
        if not key or "'" in key:
            raise ConfigurationError(
                f"Expected a non-empty key without quotes, got {key!r}. Pass a hash of the configuration."
            )
        flat = _flatten(params or {})
        code = Path(folder) if folder else Path.cwd()
        given = {
            name: redacted_setting(name, value)
            for name, value in (provenance_tags(code) | dict(tags or {})).items()
        }
        seed = {"sbi_models.seed": flat["seed"]} if "seed" in flat else {}
        experiment_id = store.experiment(experiment_name)
        more = {"identity": {**seed, KEY_TAG: key}, "tags": given}
        with store.lock():
            tracker = patiently(
                f"start a run in the experiment {experiment_name!r}",
                lambda: cls._open(
                    store, _unfinished_run(store, experiment_id, key), experiment_id, run_name, flat, **more
                ),
            )
        tracker._folder = code
        tracker._watch_the_machine()
        return tracker

    def _watch_the_machine(self) -> None:
        self._system = SystemMetrics(self._client, self._run)
        self._system.start()
        weakref.finalize(self, self._system.ask_to_stop)  # for trackers that are dropped unfinished

    @classmethod
    def _open(
        cls,
        store: Store,
        run: Run | None,
        experiment_id: str,
        run_name: str,
        params: Mapping[str, str],
        *,
        identity: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> Self:
        """Tracker of the run, opened again, or of a new run; `identity` are tags of new runs only."""
        client, reopened = store.client, run is not None
        if run is None:
            run = client.create_run(experiment_id, run_name=run_name, tags={**tags, **identity})
        else:
            client.update_run(run.info.run_id, status="RUNNING")
            client.log_batch(run.info.run_id, tags=[RunTag(*item) for item in tags.items()])
        missing = [Param(name, value) for name, value in params.items() if name not in run.data.params]
        for begin in range(0, len(missing), PARAMS_PER_CALL):
            client.log_batch(run.info.run_id, params=missing[begin : begin + PARAMS_PER_CALL])
        return cls(store, run, reopened=reopened)

    @classmethod
    def attach(cls, store: Store, run_id: str) -> Self:
        """Tracker that adds to the existing run `run_id` without changing its status."""
        return cls(store, patiently(f"find the run {run_id!r}", store.client.get_run, run_id), reopened=True)

    def child(self, name: str, params: Mapping[str, Any] | None = None) -> Self:
        """Open the child run of a part, such as a member of an ensemble; there is one of each name.

        Parameters as for `start`. It ends with this run.
        """
        provenance = provenance_tags(self._folder)
        flat, identity = _flatten(params or {}), {PARENT_TAG: self.run_id, KEY_TAG: f"{self.run_id}/{name}"}
        with self.store.lock():
            return patiently(
                f"start the run {name!r} below run {self.run_id}",
                lambda: self._open(
                    self.store,
                    self._child(identity),
                    self.experiment_id,
                    name,
                    flat,
                    identity=identity,
                    tags=provenance,
                ),
            )

    def _child(self, identity: Mapping[str, str]) -> Run | None:
        return next(
            (run for run in self._children() if run.data.tags.get(KEY_TAG) == identity[KEY_TAG]), None
        )

    def _children(self) -> list[Run]:
        return list(
            self._client.search_runs(
                [self.experiment_id], filter_string=f"tags.`{PARENT_TAG}` = '{self.run_id}'"
            )
        )

    @property
    def run_id(self) -> str:
        """Id of the MLflow run."""
        return str(self._info.run_id)

    @property
    def experiment_id(self) -> str:
        """Id of the MLflow experiment of the run."""
        return str(self._info.experiment_id)

    @property
    def artifact_path(self) -> Path | None:
        """The folder with the files of the run, if it is on this machine."""
        return local_path(self._info.artifact_uri)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add one point to each curve; returns at once, the points are written within two seconds.

        An epoch that the run already has is skipped, so a resumed training may simply log its whole history
        again.
        """
        if self._live is None:
            names = self._metric_names if self.reopened else []
            self._live = LiveMetrics(
                self._client, self.run_id, read_known=partial(known_points, self._client, self.run_id, names)
            )
        self._live.add(int(epoch), metrics)

    def flush(self) -> None:
        """Write all points of `log_epoch` now; waits for a store that is away."""
        if self._live is not None:
            self._live.flush()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers at once, for instance final diagnostics."""
        write_points(self._client, self.run_id, points(0 if step is None else int(step), metrics))

    def log_figures(self, figures: Mapping[str, Figure], folder: str = "figures", dpi: int = 120) -> None:
        """Save each figure as the picture `<folder>/<name>.png`."""
        with self._scratch("figures") as scratch:
            for name, figure in figures.items():
                figure.savefig(_inside(scratch, f"{name}.png"), dpi=dpi)
            self._upload(scratch, folder)

    def log_file(self, path: Path | str, folder: str | None = None) -> None:
        """Copy a file to the run, into `folder`; raises ConfigurationError if there is no such file."""
        if not Path(path).is_file():
            raise ConfigurationError(
                f"Expected a file to log, got {str(path)!r}, which does not exist or is a folder."
            )
        patiently(
            f"log {path} to run {self.run_id}", self._client.log_artifact, self.run_id, str(path), folder
        )

    def log_folder(self, path: Path | str) -> None:
        """Copy all files below a folder to the same places in the run.

        Raises:
            ConfigurationError: if there is no such folder.
        """
        if not Path(path).is_dir():
            raise ConfigurationError(
                f"Expected a folder to log, got {str(path)!r}, which does not exist or is a file."
            )
        patiently(
            f"log the files in {path} to run {self.run_id}",
            self._client.log_artifacts,
            self.run_id,
            str(path),
        )

    def log_table(self, table: pd.DataFrame, file: str) -> None:
        """Write a table as CSV, for instance to `metrics/diagnostics.csv`.

        A plain 0, 1, 2, ... index is left out.
        """
        with self._scratch(file) as scratch:
            table.to_csv(_inside(scratch, file), index=not isinstance(table.index, pd.RangeIndex))
            self._upload(scratch)

    def log_json(self, content: Any, file: str) -> None:
        """Write redacted JSON content to a file of the run, for instance to `architecture.json`."""
        self._write({file: json.dumps(redacted_content(content), indent=2)})

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Write texts, without passwords and tokens, as files of the run: {"notes/first.txt": ...}."""
        self._write({file: redacted(text) for file, text in texts.items()})

    def log_environment(self) -> None:
        """Write requirements, machine and code state below environment/, for a reproduction."""
        self._write(environment_files(self._folder))

    def _write(self, texts: Mapping[str, str]) -> None:
        """Write texts as they are; bytes that are not UTF-8 are those of the source (surrogateescape)."""
        with self._scratch(", ".join(texts)) as scratch:
            for file, text in texts.items():
                _inside(scratch, file).write_bytes(text.encode("utf-8", "surrogateescape"))
            self._upload(scratch)

    @contextmanager
    def _scratch(self, what: str) -> Iterator[Path]:
        """A temporary folder for files that are then uploaded; a full disk is a TrackingError."""
        with tracking_errors(f"log {what} to run {self.run_id}"), TemporaryDirectory() as scratch:
            yield Path(scratch)

    def _upload(self, scratch: Path, folder: str | None = None) -> None:
        patiently(
            f"log files to run {self.run_id}", self._client.log_artifacts, self.run_id, str(scratch), folder
        )

    def log_dataset(
        self, name: str, path_or_uri: Path | str, arrays: Mapping[str, Array], content_hash: str, context: str
    ) -> None:
        """Record a data set that the run used: its name, source, shapes, types and hash.

        Arrays are (n, ...) in raw space; `context` is, e.g., "training".

        The data stay where they are, at `path_or_uri`. The digest is the first 36 characters of
        `content_hash` (MLflow's limit); the whole of it is in the tag `sbi_models.content_hash` of the input.
        """
        given = dataset_input(name, path_or_uri, arrays, content_hash, context)
        patiently(
            f"log the data set {name!r} to run {self.run_id}",
            self._client.log_inputs,
            self.run_id,
            datasets=[given],
        )

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set or replace tags of the run."""
        written = [RunTag(name, redacted_setting(name, value)) for name, value in tags.items()]
        for begin in range(0, len(written), TAGS_PER_CALL):
            patiently(
                f"tag run {self.run_id}",
                self._client.log_batch,
                self.run_id,
                tags=written[begin : begin + TAGS_PER_CALL],
            )

    def finish(self, status: str = "FINISHED") -> None:
        """Write the queue and end the run, and child runs that have not ended.

        The status is FINISHED, FAILED or KILLED.
        """
        if status not in {"FINISHED", "FAILED", "KILLED"}:
            raise ConfigurationError(f"Expected the status FINISHED, FAILED or KILLED, got {status!r}.")
        if self._system is not None:
            self._system.finish()
        self.flush()
        patiently(f"finish run {self.run_id}", self._terminate, status)

    def _terminate(self, status: str) -> None:
        for run in self._children():
            if run.info.status == RunStatus.to_string(RunStatus.RUNNING):
                self._client.set_terminated(run.info.run_id, status)
        self._client.set_terminated(self.run_id, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")


def _unfinished_run(store: Store, experiment_id: str, key: str) -> Run | None:
    """The newest unfinished run with this key that no other live process of this machine writes."""
    runs = store.client.search_runs(
        [experiment_id],
        filter_string=f"tags.`{KEY_TAG}` = '{key}' and attributes.status != 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    for run in runs:
        if run.info.status != RunStatus.to_string(RunStatus.RUNNING) or not owner_is_alive(run.data.tags):
            return run
    return None


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as {"outer.inner": text}; their names are those of settings, or a user's."""
    flat: dict[str, str] = {}
    keys = keys_of(str(name) for name in params)
    for name, value in params.items():
        key = f"{prefix}{keys[str(name)]}"
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{key}."))
        else:
            flat[key] = redacted_setting(str(name), value)
    return flat


def _inside(folder: Path, name: str) -> Path:
    """The path of `name` below `folder`, whose parents are made; a name that leads outside is an error."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ConfigurationError(f"Expected a name that stays inside the folder of the run, got {name!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
