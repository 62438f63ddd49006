"""An experiment: the typed settings of one pipeline run, and the parameter of its Prefect flow."""

from importlib import import_module
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from sbi_models.errors import ConfigurationError


class Settings(BaseModel):
    """Unknown keys are refused; settings do not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Simulate(Settings):
    """How many simulations to make for each purpose."""

    training: PositiveInt = 100_000
    validation: PositiveInt = 5_000
    test: PositiveInt = 500


class Network(Settings):
    """A network by registered name, with the arguments that differ from its defaults."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Train(Settings):
    """The approximator and its training."""

    inference_network: Network = Network(name="flow_matching")
    summary_network: Network | None = None
    standardize: str = "all"
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 256
    initial_learning_rate: PositiveFloat = 5e-4
    threads: PositiveInt = 1
    """CPU threads of PyTorch while training."""


class Diagnose(Settings):
    """Posterior draws for each test simulation."""

    num_samples: PositiveInt = 500


class Register(Settings):
    """Name and alias in the model registry."""

    name: str
    alias: str = "champion"


class Infer(Settings):
    """Posterior draws for each real observation."""

    num_samples: PositiveInt = 10_000


class Experiment(Settings):
    """Everything that one run of the pipeline depends on.

    `study` is the import path (`module:attribute`) of an object with the simulator, the real observations and their meaning: see
    `flows.study.Study`.
    """

    name: str
    study: str
    seed: int = Field(default=1, ge=0)
    inference_variables: list[str]
    summary_variables: list[str] = Field(default_factory=list)
    inference_conditions: list[str] = Field(default_factory=list)
    simulate: Simulate = Simulate()
    train: Train = Train()
    diagnose: Diagnose = Diagnose()
    register_as: Register
    infer: Infer = Infer()


def load_object(path: str) -> Any:
    """The object at `module:attribute`; raises ConfigurationError if there is none."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"Expected an import path 'module:attribute', got {path!r}: {error}") from None
