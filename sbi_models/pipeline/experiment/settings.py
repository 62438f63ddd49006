"""An experiment: the typed settings of one pipeline run, and the parameter of its Prefect flow."""

import warnings
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.composition_settings import Compose
from sbi_models.pipeline.experiment.setting_types import (
    MIN_DATASETS,
    MIN_DRAWS,
    FileName,
    Settings,
    file_name,
)
from sbi_models.pipeline.experiment.training_settings import (
    Ensemble,
    Likelihood,
    Member,
    Train,
)


class Simulate(Settings):
    """Numbers of simulations for each purpose."""

    training: PositiveInt = 100_000
    """Simulations to train on."""
    validation: PositiveInt = 5_000
    """Simulations held out: their loss is shown after each epoch, and weights of an ensemble are learned on
    them."""
    test: int = Field(default=500, ge=MIN_DATASETS)
    """Simulations for the diagnosis."""
    rows_per_shard: PositiveInt = 32_768
    """Simulations of one file, and of one job of an engine: what is lost if a run is killed. Simulations do
    not depend on it."""

    def of(self, purpose: str) -> int:
        """How many for "training", "validation" or "test"."""
        return int(getattr(self, purpose))


class Diagnose(Settings):
    """Diagnosis on the test simulations: numbers of draws, and your own metrics and figures."""

    num_samples: int = Field(default=500, ge=MIN_DRAWS)
    """Posterior draws for each test simulation."""
    custom: list[str] = Field(default_factory=list)
    """Import paths of your own metrics and figures, such as `mine:metric`: functions `(samples, test_data,
    variable_keys, variable_names)` that return numbers or a figure."""
    disagreement_samples: PositiveInt = 100
    """Draws of each member of an ensemble."""


class Register(Settings):
    """Name in the model registry.

    Every version gets the alias `challenger`, and those that pass the gate `champion`.
    """

    name: Annotated[
        str,
        StringConstraints(pattern=r"^[^/:@'\".%\x00-\x1f]*[^/:@'\".%\s][^/:@'\".%\x00-\x1f]*$"),
        AfterValidator(file_name),
    ]
    """Name that MLflow admits: without dots, slashes, colons, quotes, @ and %."""


class Gate(Settings):
    """Conditions under which a challenger becomes the champion."""

    calibrated: bool = True
    """Require that the verdict of its diagnosis finds no flaw, and that each parameter is known better than
    by the prior."""
    uninformative: list[str] = Field(default_factory=list)
    """Parameters whose posterior may be the prior, since the data do not inform on them."""
    not_worse: bool = True
    """Require that its score on test simulations is shown not to be worse by the margin than that of the
    present champion on the same ones."""
    margin: PositiveFloat = 0.02
    """Difference that counts as equal: nats of log density; without densities that share of the champion's
    energy score."""
    level: float = Field(default=0.01, gt=0, lt=0.5)
    """Probability of a wrong decision: that what is worse by the margin passes, or what is not better is
    called better."""
    simulations: NonNegativeInt | None = None
    """Test simulations that may be made for the comparison, where those of the diagnosis do not tell; None is
    as many as there are to train on, 20 000 at most."""


class Sequential(Settings):
    """Rounds of simulation with a sequential proposal, before the main one.

    Each round is near the posterior of the one real observation by the round before.

    The approximator is then for this observation alone, and its draws are corrected by importance weights.
    """

    rounds: PositiveInt = 1
    """Number of rounds."""
    training: PositiveInt = 50_000
    """Simulations of each of these rounds, the first from the prior, to train on."""
    validation: PositiveInt = 5_000
    widening: float = Field(default=3.0, gt=1)
    """Sds of the next prior over those of the posterior draws, in the space in which parameters have no
    bounds."""


class Infer(Settings):
    """Posterior draws for each real observation, and a certificate that says whether they can be trusted."""

    num_samples: PositiveInt = 10_000
    num_proposals: PositiveInt | None = None
    """Number of draws that are weighted by the likelihood, so that the result is draws of the exact
    posterior."""
    predictive_replicates: Literal[0] | Annotated[int, Field(ge=2)] = 100
    """Data sets simulated from the posterior of each real one, and of 200 simulated ones, for its
    certificate; 0 for none."""


class Monitor(Settings):
    """Settings of the flow `monitor`."""

    num_datasets: int = Field(default=500, ge=MIN_DATASETS)
    """Fresh simulations of each monitoring."""
    num_samples: int = Field(default=500, ge=MIN_DRAWS)
    """Posterior draws for each of them."""
    level: float = Field(default=0.01, gt=0, lt=0.5)
    """Probability of an alarm if the real observations are like the simulations."""


class Retrain(Settings):
    """Settings of the flow `retrain`."""

    more: PositiveInt | None = None
    """Training simulations that are added each time; None is as many as the first run had."""


class DependsOn(Settings):
    """Files and environment variables that the simulator depends on beside its code.

    If one of them changes, finished work is not used again.
    """

    files: list[str] = Field(default_factory=list)
    """Files, and folders with all that is in them, by content; names are relative to the experiment's
    folder."""
    variables: list[str] = Field(default_factory=list)
    """Environment variables, by value."""


class Engine(Settings):
    """Engine that computes simulation shards, and members of an ensemble.

    Results are the same to the bit on each of them.
    """

    kind: Literal["threads", "processes", "dask"] = "threads"
    """Threads of this process; processes of this machine; or on a dask cluster (extra `dask`), which is a
    local one without an address."""
    workers: PositiveInt | None = None
    """Number of workers; None is one for each core. A cluster with an address has its own."""
    address: str | None = None
    """Address of a running dask scheduler, such as tcp://10.0.0.1:8786."""

    @model_validator(mode="after")
    def _address_of_dask(self) -> Self:
        if self.address is not None and self.kind != "dask":
            raise ConfigurationError(
                f"Expected an address with the engine dask only, got one with {self.kind}. Leave it out."
            )
        return self


class Experiment(Settings):
    """Settings of one run of the pipeline: everything that its results depend on.

    What is asked is either a `study`, the import path (`module:attribute`) of an object with a simulator,
    real observations and their meaning (see `sbi_models.pipeline.experiment.study.Study`), or the import path
    of a `simulator` alone, perhaps with a file of `observations`.
    """

    name: FileName
    """Name of the experiment, in MLflow too: letters, digits, dots and dashes."""
    study: str | None = None
    """Import path of a study; either this or `simulator`."""
    simulator: str | None = None
    """Import path of a simulator, such as `mine:SIMULATOR` for a name in mine.py beside the file."""
    observations: str | None = None
    """With `simulator`: real data sets, .csv for a single variable, or .npz or .safetensors by name,
    (num_datasets, ...), raw space. Data sets of different lengths: .csv with one row a measurement (data set,
    position, values), or what `sbi_models.datasets.to_arrays` gives, in .npz or .safetensors."""
    parameter_names: dict[str, list[str]] = Field(default_factory=dict)
    """With `simulator`: names of the components of inference variables; where there are none, they are
    numbered."""
    folder: str = ""
    """Folder of the YAML file, for modules to import and relative names of files."""
    depends_on: DependsOn = DependsOn()
    """Files and environment variables that the simulator reads."""
    seed: int = Field(default=1, ge=0)
    """Seed of everything random: the same seed gives the same draws to the bit on the same machine."""
    inference_variables: list[str]
    """Variables of the simulator to infer."""
    summary_variables: list[str] = Field(default_factory=list)
    """Variables that go through the summary network."""
    inference_conditions: list[str] = Field(default_factory=list)
    """Variables that go straight to the inference network."""
    adapter: list[dict[str, Any]] = Field(default_factory=list)
    """Steps from the variables to those that the networks see, in order: each is the name of a method of
    `Adapter`, or of a registered transform, with its variables, `- log: [sigma]`, or all of its arguments,
    `- constrain: {names: sigma, lower: 0}`."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Conditions that may hold NaN, each with a new name for its mask, such as `{x: x_there}`: simulations
    must have gaps, too. A summary network gets the mask, `inference_conditions` get it beside them."""
    sequential: Sequential | None = Field(default=None, validation_alias=AliasChoices("sequential", "narrow"))
    """Rounds of simulation near the one real observation come first; `narrow` is its earlier
    name."""
    simulate: Simulate = Simulate()
    train: Train = Train()
    likelihood: Likelihood | None = None
    """Learn the likelihood in place of the posterior: true, or settings."""
    ensemble: Ensemble | None = None
    """Settings of an ensemble, which the step `ensemble` trains in place of `train`."""
    diagnose: Diagnose = Diagnose()
    register_as: Register
    gate: Gate = Gate()
    infer: Infer = Infer()
    compose: Compose | None = None
    """Settings of the step `compose`, for which the approximator is trained to compose."""
    monitor: Monitor = Monitor()
    retrain: Retrain = Retrain()
    engine: Engine = Engine()

    @model_validator(mode="before")
    @classmethod
    def _earlier_names(cls, settings: object) -> object:
        if isinstance(settings, dict) and "narrow" in settings:
            warnings.warn(
                "The setting narrow is now called sequential: rename the key. The next release does not know "
                "narrow.",
                FutureWarning,
                stacklevel=2,
            )
        return settings

    @model_validator(mode="before")
    @classmethod
    def _likelihood_by_truth(cls, settings: object) -> object:
        """Settings in place of true, and the automatic network where a likelihood names none."""
        if not isinstance(settings, dict) or settings.get("likelihood") is None:
            return settings
        likelihood, train = settings["likelihood"], settings.get("train", {})
        if likelihood is False:
            return settings | {"likelihood": None}
        if isinstance(train, dict) and "inference_network" not in train:
            settings = settings | {"train": train | {"inference_network": {"name": "auto"}}}
        return settings | {"likelihood": {} if likelihood is True else likelihood}

    @field_validator("engine", mode="before")
    @classmethod
    def _engine_by_name(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("adapter", mode="before")
    @classmethod
    def _one_name_a_step(cls, value: object) -> object:
        if not isinstance(value, list):
            raise ConfigurationError(
                "Expected a list of steps, such as [{log: [sigma]}]. Begin each with a dash"
            )
        for number, step in enumerate(value, start=1):
            if not (isinstance(step, dict) and len(step) == 1 and isinstance(next(iter(step)), str)):
                raise ConfigurationError(
                    f"step {number}: expected one name with its variables or arguments, got {step!r:.80}. "
                    "Write for instance - log: [sigma]"
                )
        return value

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.study is None) == (self.simulator is None):
            raise ConfigurationError(
                f"Expected either a study or a simulator, got {'neither' if self.study is None else 'both'}."
            )
        if self.study is not None and (self.observations is not None or self.parameter_names):
            raise ConfigurationError(
                "Expected observations and parameter_names with a simulator; a study has its own. "
                "Leave them out."
            )
        return self

    @model_validator(mode="after")
    def _weights_where_sequential(self) -> Self:
        if self.infer.num_proposals is not None and self.infer.num_proposals < self.infer.num_samples:
            raise ConfigurationError(
                "Expected infer.num_proposals of at least infer.num_samples, "
                f"{self.infer.num_samples}, got {self.infer.num_proposals}."
            )
        if self.sequential is None:
            return self
        if self.infer.num_proposals is None:
            raise ConfigurationError(
                "Expected infer.num_proposals with sequential, whose draws need weights, got none. "
                "Take 20000."
            )
        if self.compose is not None:
            raise ConfigurationError(
                "Expected either sequential or compose, got both: rounds of simulation are for a single "
                "data set. Leave one out."
            )
        return self

    @model_validator(mode="after")
    def _likelihood_alone(self) -> Self:
        if self.likelihood is None:
            return self
        others = {
            "ensemble": self.ensemble,
            "compose": self.compose,
            "sequential": self.sequential,
            "missing": self.missing,
            "summary_variables": self.summary_variables,
            "train.summary_network": self.train.summary_network,
            "infer.num_proposals": self.infer.num_proposals,
        }
        if given := [name for name, value in others.items() if value]:
            raise ConfigurationError(
                f"Expected no {given[0]} with likelihood, which learns the density of inference_conditions "
                f"given inference_variables. Leave {given[0]} out, or likelihood."
            )
        self.likelihood.check(self.inference_conditions)
        return self

    def what_matters(self) -> dict[str, Any]:
        """All settings that results depend on: without engine, folder, monitoring and retraining."""
        return self.model_dump(
            mode="json",
            exclude={
                "engine": True,
                "folder": True,
                "monitor": True,
                "retrain": True,
                "simulate": {"rows_per_shard"},
            },
        )

    @property
    def observables(self) -> list[str]:
        """What a learned likelihood is the density of."""
        given = [] if self.likelihood is None else self.likelihood.conditions
        return [name for name in self.inference_conditions if name not in given]

    @property
    def variables(self) -> list[str]:
        """The variables of the simulator that the networks see."""
        return [*self.inference_variables, *self.summary_variables, *self.inference_conditions]

    @property
    def may_miss(self) -> frozenset[str]:
        """The variables that may hold NaN: those under `missing`, and those that `nan_to_num` fills."""
        filled = [step["nan_to_num"] for step in self.adapter if "nan_to_num" in step]
        names = [step.get("name") if isinstance(step, dict) else step for step in filled]
        return frozenset([*self.missing, *(name for name in names if isinstance(name, str))])

    @property
    def members(self) -> dict[str, Member]:
        """The members of the ensemble by name; none without an ensemble."""
        return {} if self.ensemble is None else self.ensemble.by_name(self.train)
