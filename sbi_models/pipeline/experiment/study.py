"""What the pipeline must know about a scientific question beyond its settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from torch.distributions import Distribution

from sbi_models.simulators import Simulator
from sbi_models.types import Array, FloatArray, Variables


@dataclass(frozen=True)
class Quantity:
    """Something that the posterior is reported for, computed from parameters.

    Attributes:
        name: short, with unit.
        unit: unit of the values.
        offset: what readers see added to the values.
        truth: a known value to mark in figures, in the unit of the values before the offset.
    """

    name: str
    unit: str
    offset: float = 0.0
    truth: float | None = None


@dataclass(frozen=True)
class Reference:
    """The exact posterior of one quantity for one data set: moments, 95 % interval, density on a grid."""

    mean: float
    sd: float
    interval: tuple[float, float]
    grid: FloatArray
    density: FloatArray

    @classmethod
    def of_draws(cls, draws: Array) -> Self:
        """From draws of it, (n,), by another method."""
        from scipy.stats import gaussian_kde  # noqa: PLC0415 - slow to import

        grid = np.linspace(draws.min(), draws.max(), 200)
        low, high = np.quantile(draws, [0.025, 0.975])
        return cls(
            float(draws.mean()),
            float(draws.std(ddof=1)),
            (float(low), float(high)),
            grid,
            gaussian_kde(draws)(grid),
        )


class Study(Protocol):
    """Simulator, real observations, and the meaning of the parameters."""

    simulator: Simulator
    parameter_names: dict[str, list[str]]
    """Names of the components of each inference variable."""
    quantities: tuple[Quantity, ...]
    data_set_name: str
    """What one real data set is called, for instance experiment or patient."""

    def observations(self) -> tuple[list[str], Variables]:
        """A label for each real data set, and variables of shape (num_datasets, ...), raw space."""
        ...

    def evaluate(self, draws: Variables) -> list[Array]:
        """Each quantity of posterior draws: arrays (num_datasets, num_samples).

        The draws are variables (num_datasets, num_samples, width), raw space.
        """
        ...

    def references(self, observations: Variables) -> list[list[Reference]] | None:
        """The exact posterior of each quantity (inner) for each data set (outer); None if unknown."""
        ...


@runtime_checkable
class KnowsPrior(Protocol):
    """A study that knows the score of its prior.

    Without one, torch priors of its simulator, or what the network learned, are taken.
    """

    def prior_score(self, data: Variables) -> Variables:
        """d log p(theta) / d theta of each inference variable (m, width), of the same shape, raw space."""
        ...


@runtime_checkable
class KnowsPriorDensity(Protocol):
    """A study that knows the density of its prior, where its simulator draws parameters by a function."""

    def prior(self) -> Mapping[str, Distribution]:
        """Torch distribution of each inference variable, (width,), raw space."""
        ...


@runtime_checkable
class KnowsComposition(Protocol):
    """A study that knows the exact posterior given all data sets together."""

    def composed_references(self, observations: Variables) -> list[Reference]:
        """The exact posterior of each quantity given all data sets together.

        The observations (num_datasets, ...), raw space, have the parameters in common.
        """
        ...


@runtime_checkable
class KnowsReferenceDraws(Protocol):
    """A study that has draws of the exact posteriors, by another method."""

    def reference_draws(self, observations: Variables) -> list[Variables]:
        """Of each data set, the inference variables (n, width), raw space."""
        ...
