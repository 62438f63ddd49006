"""Influenza at an English boarding school, 1978: infection and recovery from the boys in bed on 14 days."""

from functools import cache
from typing import ClassVar

import numpy as np

from flows.study import Quantity, Reference
from sbi_models.simulators.benchmarks.influenza import Influenza
from sbi_models.types import Array, FloatArray, Variables

MODEL = Influenza()
WIDEST = np.array([[0.0, 6.0], [0.0, 2.5], [0.0, 2.5]])
"""Where the posterior is looked for: nearly all of the prior."""

CELLS, ROUNDS, NEGLIGIBLE = (32, 32, 24), 3, 1e-7
NUM_DRAWS = 10_000


class InfluenzaStudy:
    """Rates of infection and recovery and their ratio R0; the exact posterior is a sum over a grid."""

    simulator = MODEL.simulator
    parameter_names: ClassVar[dict[str, list[str]]] = {"theta": list(MODEL.names)}
    quantities = (Quantity("beta", "1/day"), Quantity("gamma", "1/day"), Quantity("R0", ""), Quantity("1 / phi", ""))
    data_set_name = "data"

    def observations(self) -> tuple[list[str], Variables]:
        """Boys in bed."""
        return ["school"], {"x": MODEL.observed[None]}

    def evaluate(self, draws: Variables) -> list[Array]:
        """beta, gamma, R0 = beta / gamma, and 1 / phi."""
        beta, gamma, inverse_phi = np.moveaxis(draws["theta"], -1, 0)
        return [beta, gamma, beta / gamma, inverse_phi]

    def references(self, observations: Variables) -> list[list[Reference]]:
        """Of draws from the grid."""
        return [[Reference.of_draws(values) for values in self.evaluate(draws)] for draws in self.reference_draws(observations)]

    def reference_draws(self, observations: Variables) -> list[Variables]:
        """Draws from the grid, uniform within its cells."""
        return [{"theta": exact_draws(tuple(x))} for x in observations["x"]]


@cache
def exact_draws(x: tuple[float, ...]) -> FloatArray:
    """Draws of the posterior given boys in bed on 14 days, (10 000, 3), raw space, by a grid that is refined where the posterior is."""
    box = WIDEST
    for _ in range(ROUNDS):
        steps = (box[:, 1] - box[:, 0]) / CELLS
        axes = [low + step * (np.arange(n) + 0.5) for low, step, n in zip(box[:, 0], steps, CELLS, strict=True)]
        theta = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        density = np.concatenate([MODEL.log_joint(slab, np.array(x)) for slab in theta])
        share = np.exp(density.reshape(CELLS) - density.max())
        share /= share.sum()
        found = box.copy()
        for k in range(3):
            margin = share.sum(axis=tuple({0, 1, 2} - {k}))
            inside = np.flatnonzero(margin > NEGLIGIBLE)
            found[k] = axes[k][inside[0]] - steps[k], axes[k][inside[-1]] + steps[k]
        last, box = box, np.clip(found, WIDEST[:, :1], WIDEST[:, 1:])
    rng = np.random.default_rng(0)
    cells = np.stack(np.unravel_index(rng.choice(share.size, NUM_DRAWS, p=share.ravel()), CELLS), axis=1)
    return np.asarray(last[:, 0] + steps * (cells + rng.uniform(size=cells.shape)))


STUDY = InfluenzaStudy()
