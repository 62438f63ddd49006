"""Records of finished runs: parameters, tags, files, versions and machine."""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from mlflow.entities import Run

from sbi_models.errors import TrackingError
from sbi_models.tracking.failures import tracking_errors
from sbi_models.tracking.provenance import OWN_COMMIT, OWN_DIRTY, OWN_HASH, provenance_tags
from sbi_models.tracking.run_environment import FOLDER as ENVIRONMENT
from sbi_models.tracking.store import Store, local_path
from sbi_models.tracking.tracker import PARENT_TAG

FLOW_TAG = "sbi_models.flow"
"""Which flow made a run."""


@dataclass(frozen=True)
class RunRecord:
    """One run; made by `read` or `ended`."""

    store: Store
    run: Run

    @classmethod
    def read(cls, store: Store, run_id: str) -> Self:
        """The run of an id; raises TrackingError if there is none."""
        with tracking_errors(f"find the run {run_id!r}"):
            return cls(store, store.client.get_run(run_id))

    @classmethod
    def ended(cls, store: Store, experiment_name: str, flow: str, status: str = "FINISHED") -> list[Self]:
        """The runs of a flow in an experiment that ended so, the newest first; parts of runs are left out."""
        chosen = f"attributes.status = '{status}' and tags.`{FLOW_TAG}` = '{flow}'"
        with tracking_errors(f"list the runs of the experiment {experiment_name!r}"):
            runs = store.client.search_runs(
                [store.experiment(experiment_name)],
                filter_string=chosen,
                order_by=["attributes.start_time DESC"],
                max_results=1000,
            )
        return [cls(store, run) for run in runs if PARENT_TAG not in run.data.tags]

    @classmethod
    def newest(cls, store: Store, flow: str) -> Self:
        """The finished run of a flow that was started last, of all experiments.

        Raises:
            TrackingError: if there is none.
        """
        with tracking_errors("list the runs of all experiments"):
            experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
            chosen = f"attributes.status = 'FINISHED' and tags.`{FLOW_TAG}` = '{flow}'"
            runs = store.client.search_runs(
                experiments, filter_string=chosen, order_by=["attributes.start_time DESC"], max_results=1
            )
        if not runs:
            raise TrackingError(
                f"Expected a finished run of the flow {flow}, got none. Run an experiment first: "
                "sbi-models run michelson."
            )
        return cls(store, runs[0])

    @property
    def run_id(self) -> str:
        """Id of the MLflow run."""
        return str(self.run.info.run_id)

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the run."""
        return dict(self.run.data.tags)

    @property
    def params(self) -> dict[str, str]:
        """Parameters of the run, as MLflow keeps them: text."""
        return dict(self.run.data.params)

    @property
    def experiment_name(self) -> str:
        """The name of the experiment that the run belongs to."""
        with tracking_errors(f"find the experiment {self.run.info.experiment_id}"):
            return str(self.store.client.get_experiment(self.run.info.experiment_id).name)

    @property
    def content_hashes(self) -> dict[str, str]:
        """The content hash of each data set of the run, by name."""
        inputs = self.run.inputs.dataset_inputs if self.run.inputs else []
        tags_by_name = {given.dataset.name: {tag.key: tag.value for tag in given.tags} for given in inputs}
        return {name: tags.get("sbi_models.content_hash", "") for name, tags in tags_by_name.items()}

    def local_file(self, path: str) -> Path | None:
        """A file of the run where it lies, if it is on this machine."""
        folder = local_path(self.run.info.artifact_uri)
        return folder / path if folder is not None and (folder / path).is_file() else None

    def fetch(self, path: str, folder: Path) -> Path:
        """Download a file or a folder of the run to the same place below a folder.

        Raises:
            TrackingError: if the run has none.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with tracking_errors(f"download {path} of the run {self.run.info.run_id}"):
            try:
                return Path(self.store.client.download_artifacts(self.run.info.run_id, path, str(folder)))
            except OSError as error:
                raise TrackingError(f"The run {self.run.info.run_id} has no {path}: {error}") from error

    def other_versions(self) -> dict[str, tuple[str, str]]:
        """Versions that differ between the run and this process, as name: (then, now)."""
        then, now = self.tags, provenance_tags(Path.cwd())
        names = [
            name for name in then if name.startswith("version.") or name in {OWN_COMMIT, OWN_DIRTY, OWN_HASH}
        ]
        return {
            name.removeprefix("version."): (then[name], now.get(name, "missing"))
            for name in names
            if then[name] != now.get(name)
        }

    def machine(self) -> dict[str, Any]:
        """The machine of the run, as `environment/machine.json` has it; empty if the run has none."""
        with TemporaryDirectory() as scratch:
            try:
                return dict(
                    json.loads(
                        self.fetch(f"{ENVIRONMENT}/machine.json", Path(scratch)).read_text(encoding="utf-8")
                    )
                )
            except TrackingError:  # a run of an earlier release
                return {}
