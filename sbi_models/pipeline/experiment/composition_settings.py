"""Settings of an experiment's composition: one posterior given all real data sets together."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from sbi_models.pipeline.experiment.setting_types import Settings
from sbi_models.pipeline.experiment.training_settings import Network


class ComposedLikelihood(Settings):
    """A learned likelihood of single elements, whose posterior given all data sets is compared with the
    composed one.

    It is returned unless its chains, or data sets simulated at its draws, speak against it. The prior must
    have a density: torch distributions in the simulator, or a method `prior` of the study.
    """

    network: Network = Network(name="auto")
    """Network with a density by name; "auto" chooses networks and transforms by the simulations, and the
    training where it is left open."""
    conditions: list[str] = Field(default_factory=list)
    """Conditions of the experiment that are known beside each data set and have no density, such as a
    stimulus."""
    simulations: PositiveInt | None = None
    """Training simulations to learn from; None is all of them."""
    epochs: PositiveInt | None = None
    """Passes over them; None is 100, or what "auto" chooses."""
    batch_size: PositiveInt | None = None
    """Elements in one step; None is 32, or what "auto" chooses."""


class Compose(Settings):
    """One posterior given all real data sets together, by composition of the posteriors given each."""

    num_samples: PositiveInt = 10_000
    method: Literal["calibrated", "gauss", "langevin", "plain"] = "calibrated"
    """Method of composition; those other than "calibrated" are for comparison."""
    calibration_simulations: NonNegativeInt | None = None
    """Fresh simulations that remove the errors all data sets share; None takes as many as their number asks
    for, 0 none."""
    noise: float | None = Field(default=None, ge=0.001, le=1)
    """Noise level at which scores are composed, in sds of the standardized parameters; None lets the
    simulations choose."""
    likelihood: ComposedLikelihood | None = None
    """Settings of a learned likelihood beside the composition; `{}` takes the defaults, None learns none."""
