"""Hares and lynxes: rates of predators and prey from pelts of the years 1900 to 1920.

The Hudson's Bay Company bought them.
"""

from typing import ClassVar

import numpy as np

from sbi_models.pipeline.experiment.study import Quantity, Reference
from sbi_models.simulators import make_simulator
from sbi_models.simulators.benchmarks.hare_lynx import HareLynx
from sbi_models.types import Array, FloatArray, Variables

MODEL = HareLynx()
UNITS = ("1/year", "1/(year thousand)", "1/year", "1/(year thousand)", "thousands", "thousands", "", "")


class FlatPelts:
    """The model with its 21 years of two animals as one row of 42 numbers, for networks that take rows."""

    def prior(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """theta, shape (batch_size, 8), raw space."""
        return MODEL.prior(batch_size, rng)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """pelts, shape (n, 42), thousands, year by year hare and lynx, given theta of shape (n, 8)."""
        return {"pelts": MODEL.likelihood(theta, rng)["x"].reshape(len(theta), -1)}

    def log_joint(self, theta: Array, pelts: Array) -> FloatArray:
        """log p(theta, pelts) in nats (n,), for theta (n, 8) and pelts (n, 42), raw space."""
        return MODEL.log_joint(theta, np.asarray(pelts).reshape(len(pelts), *MODEL.x_shape))


PELTS = FlatPelts()


class HareLynxStudy:
    """The eight parameters; draws of the exact posterior by Hamiltonian Monte Carlo are known."""

    simulator = make_simulator([PELTS.prior, PELTS.likelihood], is_batched=True)
    parameter_names: ClassVar[dict[str, list[str]]] = {"theta": list(MODEL.names)}
    quantities = tuple(Quantity(name, unit) for name, unit in zip(MODEL.names, UNITS, strict=True))
    data_set_name = "data"

    def observations(self) -> tuple[list[str], Variables]:
        """The pelts bought, thousands."""
        return ["pelts"], {"pelts": MODEL.observed.reshape(1, -1)}

    def evaluate(self, draws: Variables) -> list[Array]:
        """The parameters themselves."""
        return list(np.moveaxis(draws["theta"], -1, 0))

    def references(self, observations: Variables) -> list[list[Reference]]:
        """Of the reference draws."""
        return [
            [Reference.of_draws(column) for column in draws["theta"].T]
            for draws in self.reference_draws(observations)
        ]

    def reference_draws(self, observations: Variables) -> list[Variables]:
        """2000 draws by Hamiltonian Monte Carlo, of posteriordb."""
        del observations
        return [{"theta": MODEL.reference_draws}]


STUDY = HareLynxStudy()
