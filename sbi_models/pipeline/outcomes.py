"""Outcomes of steps: typed JSON in Prefect's cache, and the files that a step leaves in its folder.

An outcome is a pydantic model and not a dataclass, because it is read back from a file: pydantic restores
nested ones, and refuses a file that lacks a field. A step writes its files, and the pipeline copies them to a
run, so a finished step can be used again by a later run, whose page is then as whole as that of the first.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from sbi_models.datasets import SimulationStore
from sbi_models.errors import DataError
from sbi_models.types import Variables

JSONObject = dict[str, Any]
"""A result of the library by its `as_dict()`, such as a verdict or a certificate, in its published form."""

DPI = 120


def file_sha256(path: str | Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Outcome(BaseModel):
    """What a step returns: fields that JSON can hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float = 0.0
    """Seconds that the step took, whenever that was."""
    finished: str = ""
    """Time at which it ended, UTC."""

    @property
    def is_intact(self) -> bool:
        """True if the files that the outcome names are there, to the bit."""
        return True


class Simulations(Outcome):
    """Stores with simulations, by purpose: "training", "validation" and "test".

    Attributes:
        key: cache key of the step.
        stores: folder of each store.
        content_hash: sha256 of the simulations of each store.
        num_simulations: number of simulations for each purpose; a store may have more by now.
        num_contexts: number of contexts, outputs of `meta_fn`, among them; empty without `meta_fn`.
        made: number of simulations that this run has computed.
    """

    key: str
    stores: dict[str, str]
    content_hash: dict[str, str]
    num_simulations: dict[str, int]
    num_contexts: dict[str, int] = {}
    made: int = 0

    def store(self, purpose: str) -> SimulationStore:
        """The simulations for a purpose."""
        return SimulationStore.open(self.stores[purpose]).first(self.num_simulations[purpose])

    def load(self, purpose: str) -> Variables:
        """The simulations for a purpose, raw space: name to (num_simulations, ...)."""
        return self.store(purpose).load()

    @property
    def is_intact(self) -> bool:
        for purpose, content_hash in self.content_hash.items():
            try:
                store = self.store(purpose)
            except DataError:
                return False
            if not store.is_intact() or store.content_hash != content_hash:
                return False
        return True


class TrainedMember(BaseModel):
    """One member of an ensemble: weight, best epoch, number of parameters, architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float
    best_epoch: int
    num_parameters: int
    architecture: Any

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers, as metrics."""
        return {
            "weight": self.weight,
            "best_epoch": self.best_epoch,
            "num_parameters": self.num_parameters,
        }


class Training(Outcome):
    """A trained approximator.

    Attributes:
        key: cache key of the step, and name of the folder with its files.
        model: path of the saved approximator.
        sha256: sha256 of that file.
        history: losses of each epoch by name.
        choices: what `inference_network: auto` chose; empty for other networks.
        members: members of an ensemble by name; empty without an ensemble.
    """

    key: str
    model: str
    sha256: str
    history: dict[str, list[float]]
    choices: JSONObject = Field(default_factory=dict)
    members: dict[str, TrainedMember] = Field(default_factory=dict)

    @property
    def is_intact(self) -> bool:
        return Path(self.model).is_file() and file_sha256(self.model) == self.sha256


class Proposal(Outcome):
    """The proposal of the next round of simulations, as `as_json` of it."""

    prior: JSONObject


class FilesOutcome(Outcome):
    """An outcome with files in a folder, at their places in a run, and with metrics and tags of the run."""

    folder: str
    files: dict[str, str]
    """sha256 of each file, by its path in the folder."""
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def is_intact(self) -> bool:
        folder = Path(self.folder)
        return all(
            (folder / file).is_file() and file_sha256(folder / file) == sha256
            for file, sha256 in self.files.items()
        )

    @property
    def parts(self) -> dict[str, "FilesOutcome"]:
        """Outcomes of the members of an ensemble, for the runs of these."""
        return {}


class ModelDiagnosis(FilesOutcome):
    """Diagnostics of one approximator.

    Attributes:
        diagnostics: default metrics by name and parameter.
        figures: names of the figures.
        verdict: `Verdict.as_dict()`.
        log_score: mean log density of the true parameters in nats; None without densities.
        custom: numbers of the user's own diagnostics, by label.
        custom_figures: file of each figure of the user's own diagnostics, by label.
    """

    diagnostics: dict[str, dict[str, float]]
    figures: list[str]
    verdict: JSONObject
    log_score: float | None = None
    custom: dict[str, float] = Field(default_factory=dict)
    custom_figures: dict[str, str] = Field(default_factory=dict)


class Disagreement(BaseModel):
    """How far members are apart, by a measure: statistics for real data sets and for test simulations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measure: str
    observed: dict[str, float]
    simulated: dict[str, float]


class Diagnosis(ModelDiagnosis):
    """Diagnostics of the approximator, of each member of an ensemble, and of how far these are apart.

    Those of a learned likelihood are of the posterior that it implies; `observables` is the verdict on its
    observables, given the parameters, and `doubtful` the share of posteriors whose reports have warnings.
    """

    members: dict[str, ModelDiagnosis] = Field(default_factory=dict)
    disagreement: Disagreement | None = None
    observables: JSONObject | None = None
    doubtful: float | None = None

    @property
    def is_intact(self) -> bool:
        return super().is_intact and all(member.is_intact for member in self.members.values())

    @property
    def parts(self) -> dict[str, FilesOutcome]:
        return dict(self.members)


class Registered(Outcome):
    """A version in the model registry; `reused` if the same file was registered before."""

    uri: str
    name: str
    version: int
    reused: bool


class VersionComparison(BaseModel):
    """Scores of the challenger compared with those of another version; attributes as of `Comparison`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    word: str
    score: str
    num_simulations: int
    difference: float
    low: float
    high: float
    margin: float
    level: float


class Decision(BaseModel):
    """Decision of the gate.

    Attributes:
        promoted: True if the challenger is the champion.
        champion: version that is champion now; None without one.
        before: version that was champion before; None without one.
        reasons: sentences.
        comparisons: comparisons with other versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    promoted: bool
    champion: int | None
    before: int | None
    reasons: list[str]
    comparisons: list[VersionComparison] = Field(default_factory=list)


class Inference(FilesOutcome):
    """Posteriors of the real data sets.

    Attributes:
        data_set_name: what one data set is called.
        table: rows of `posterior_table`.
        draws_sha256: sha256 of the file with the draws.
        certificates: `Certificate.as_dict()` with the label `data_set`, by data set.
        corrections: `ResamplingReport.as_dict()` with the label `data_set`; empty without importance weights.
        reports: `PosteriorReport.as_dict()` with the label `data_set`, of a learned likelihood, which has no
            certificates.
        reference_c2st: C2ST to reference draws by data set; empty where there are none.
    """

    data_set_name: str
    table: list[JSONObject]
    draws_sha256: str
    certificates: list[JSONObject]
    corrections: list[JSONObject]
    reference_c2st: dict[str, float]
    reports: list[JSONObject] = Field(default_factory=list)


class LearnedLikelihood(FilesOutcome):
    """A likelihood that compositions are compared with: sha256 of its file, and losses of each epoch."""

    sha256: str
    history: dict[str, list[float]]


class Composition(FilesOutcome):
    """The posterior given all real data sets together; `report` is `CompositionReport.as_dict()`."""

    table: list[JSONObject]
    report: JSONObject
    draws_sha256: str


class Monitoring(FilesOutcome):
    """What a monitoring found of the champion: verdict, p-value of the real observations, and alarms."""

    verdict: JSONObject
    p_value: float | None
    drift: str
    alarms: list[str]


class PipelineResult(BaseModel):
    """Outcomes of all steps of a pipeline run; `report` is the file of its page, None if making it failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    artifacts: str | None
    simulations: Simulations
    training: Training
    diagnosis: Diagnosis
    registered: Registered
    gate: Decision
    inference: Inference | None
    composition: Composition | None
    report: str | None = None
    report_error: str | None = None


class MonitorResult(BaseModel):
    """The run of a monitoring, the version that it looked at, and what it found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    model: str
    monitoring: Monitoring


class Figure(Protocol):
    """A Matplotlib figure."""

    def savefig(self, fname: Any, *, dpi: Any = ...) -> object: ...


class Results:
    """Writer of the files of a step, at their places in the run, which also collects numbers and tags.

    Args:
        folder: folder of the files; made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, str] = {}
        self._files: list[str] = []

    def path(self, file: str) -> Path:
        """Where to write a file of the run, such as "inference/draws.parquet"; it counts as written."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.append(file)
        return path

    def figures(self, figures: Mapping[str, Figure]) -> None:
        """Write figures to `figures/NAME.png`."""
        for name, figure in figures.items():
            figure.savefig(self.path(f"figures/{name}.png"), dpi=DPI)

    def table(self, table: pd.DataFrame, file: str) -> None:
        """Write a CSV file; a plain 0, 1, 2, ... index is left out."""
        table.to_csv(self.path(file), index=not isinstance(table.index, pd.RangeIndex))

    def json(self, content: Any, file: str) -> None:
        """Write a JSON file."""
        self.path(file).write_text(json.dumps(content, indent=2), encoding="utf-8")

    def fields(self) -> JSONObject:
        """The fields of a `FilesOutcome`: folder, files with their sha256, metrics and tags."""
        files = {file: file_sha256(self.folder / file) for file in sorted(set(self._files))}
        return {"folder": str(self.folder), "files": files, "metrics": self.metrics, "tags": self.tags}
