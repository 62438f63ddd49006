"""Settings of networks and their training, of one approximator or an ensemble."""

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from sbi_models.errors import ConfigurationError, suggest
from sbi_models.pipeline.experiment.setting_types import MIN_DATASETS, FileName, Settings


class Network(Settings):
    """A network by registered name, with the arguments that differ from its defaults."""

    name: str
    """Registered name of a network of the package or of your own."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of its class."""


class Train(Settings):
    """The approximator and its training."""

    inference_network: Network = Network(name="flow_matching")
    """Inference network by name; "auto" chooses network, transforms, epochs, batch size and learning rate by
    the simulations."""
    summary_network: Network | None = None
    """Summary network, needed exactly where there are `summary_variables`."""
    standardize: str = "all"
    """Roles whose variables are standardized, or "all"."""
    epochs: PositiveInt = 20
    """Passes over the training simulations."""
    batch_size: PositiveInt = 256
    """Simulations in one step."""
    initial_learning_rate: PositiveFloat = 5e-4
    """Peak of the schedule of the learning rate."""
    threads: PositiveInt = 1
    """CPU threads of PyTorch while training."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Device to train on; auto is a GPU where there is one."""
    devices: PositiveInt | Literal["auto"] = 1
    """Number of devices that share each batch, through Lightning; the result is that of one up to
    rounding."""
    strategy: str = "auto"
    """Strategy of Lightning for several devices: "ddp_spawn" or "ddp_fork" where the pipeline starts the
    processes."""


class Likelihood(Settings):
    """A learned likelihood in place of a posterior, whose draws come from it and the prior of the simulator.

    `inference_conditions` are what has a density, given `inference_variables`; the network is "auto" unless
    `train` names another one. The prior has to be torch distributions.
    """

    iid: Literal["elements", "sets"] | None = None
    """What data are: one vector; or any number of elements that are independent given the parameters, of
    which a simulation is one ("elements") or a set ("sets")."""
    conditions: list[str] = Field(default_factory=list)
    """Those of `inference_conditions` that have no density, such as a stimulus, known for each element."""
    diagnosed: int = Field(default=100, ge=MIN_DATASETS)
    """Test simulations whose posteriors are drawn for the verdict; all of them count for the log score."""
    elements: PositiveInt | None = None
    """Elements that are simulated for each of these where a simulation is one element (iid "elements"); None
    is as many as the real data sets have, 100 at most."""

    def check(self, names: list[str]) -> None:
        """Raise ConfigurationError if `inference_conditions` lack a condition, or have nothing else."""
        for name in self.conditions:
            if name not in names:
                raise ConfigurationError(
                    f"Expected likelihood.conditions among inference_conditions, got {name!r}. "
                    f"{suggest(name, names)}"
                )
        if set(names) <= set(self.conditions):
            raise ConfigurationError(
                "Expected inference_conditions that have a density, got none beside likelihood.conditions."
            )


class Member(Settings):
    """Networks of one member of an ensemble; its summary network is by default that of `train`."""

    inference_network: Network
    summary_network: Network | None = None


class Ensemble(Settings):
    """Several approximators and their mixture in place of one, trained as `train` says.

    Either `size` members "0", "1", ... with clones of the networks in `train`, or `members` by name.
    """

    size: int | None = Field(default=None, ge=2)
    """Number of members with the networks of `train`."""
    members: dict[FileName, Member] | None = Field(default=None, min_length=2)
    """Networks of the members by name."""
    data_reuse: float = Field(default=1.0, ge=0, le=1)
    """Share of simulations in common: with 1 all members train on all, with 0 no two share one."""
    learn_weights: bool = True
    """Learn the weights of the mixture on the validation simulations; otherwise all members count the
    same."""

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.size is None) == (self.members is None):
            raise ConfigurationError(
                "Expected either size or members of an ensemble, got "
                f"{'neither' if self.size is None else 'both'}."
            )
        return self

    def by_name(self, train: Train) -> dict[str, Member]:
        """The networks of every member."""
        if self.members is None:
            member = Member(inference_network=train.inference_network, summary_network=train.summary_network)
            return {str(k): member for k in range(self.size or 0)}
        return {
            name: Member(
                inference_network=member.inference_network,
                summary_network=member.summary_network or train.summary_network,
            )
            for name, member in self.members.items()
        }
