"""The question of the main job: the speed of light from Michelson's measurements of 1879."""

from typing import ClassVar

import numpy as np
import torch
from torch.distributions import Distribution, Independent, Normal

from sbi_models.pipeline.experiment.observations import read_observations
from sbi_models.pipeline.experiment.study import Quantity, Reference
from sbi_models.simulators.benchmarks import michelson
from sbi_models.types import Array, Variables

LEVELS = np.array([0.025, 0.975])


class MichelsonStudy:
    """Mean speed and spread of each of the five experiments, with an exact posterior by quadrature."""

    simulator = michelson.SIMULATOR
    parameter_names: ClassVar[dict[str, list[str]]] = {"theta": ["mu", "log_variance"]}
    quantities = (
        Quantity("speed of light", "km/s", offset=michelson.SPEED_OFFSET, truth=michelson.SPEED_TODAY),
        Quantity("spread of a run", "km/s"),
    )

    data_set_name = "experiment"

    def observations(self) -> tuple[list[str], Variables]:
        """The five experiments as data sets of 20 speeds in km/s minus 299 000."""
        labels, speeds = read_observations(michelson.DATA, "x", (20, 1))
        return labels, {"x": speeds}

    def evaluate(self, draws: Variables) -> list[Array]:
        """Mean speed (km/s minus 299 000) and standard deviation of a run (km/s)."""
        return [draws["theta"][..., 0], np.exp(draws["theta"][..., 1] / 2)]

    def references(self, observations: Variables) -> list[list[Reference]]:
        """The exact posterior by quadrature."""
        return [[self._speed(x), self._spread(x)] for x in observations["x"]]

    def prior_score(self, data: Variables) -> Variables:
        """That of the normal prior of theta = (mu, v), shape (m, 2), raw space."""
        return {"theta": michelson.MODEL.prior_score(data["theta"])}

    def prior(self) -> dict[str, Distribution]:
        """The same prior by its density."""
        model = michelson.MODEL
        center = torch.tensor([model.location, 2 * np.log(model.scale)])
        return {"theta": Independent(Normal(center, torch.tensor([model.scale, 1.0])), 1)}

    def composed_references(self, observations: Variables) -> list[Reference]:
        """The exact posterior by quadrature of all measurements, as if of one experiment."""
        measurements = observations["x"].reshape(-1)
        return [self._speed(measurements), self._spread(measurements)]

    def _speed(self, x: Array) -> Reference:
        posterior = michelson.MODEL.posterior(x)
        low, high = posterior.quantiles(LEVELS)[:, 0]
        mean, sd = float(posterior.mean[0]), float(posterior.sd[0])
        grid = np.linspace(mean - 5 * sd, mean + 5 * sd, 400)
        return Reference(mean, sd, (float(low), float(high)), grid, posterior.mean_density(grid))

    def _spread(self, x: Array) -> Reference:
        posterior = michelson.MODEL.posterior(x)
        mean, sd = posterior.spread
        low, high = np.exp(posterior.quantiles(LEVELS)[:, 1] / 2)
        grid = np.linspace(max(mean - 4 * sd, mean / 10), mean + 6 * sd, 400)
        density = posterior.log_variance_density(2 * np.log(grid)) * 2 / grid
        return Reference(mean, sd, (float(low), float(high)), grid, density)


STUDY = MichelsonStudy()
