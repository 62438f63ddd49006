"""Influenza at an English boarding school, 1978: infection and recovery from the boys in bed on 14 days."""

from functools import cache
from typing import ClassVar

import numpy as np

from sbi_models.pipeline.experiment.study import Quantity, Reference
from sbi_models.simulators.benchmarks.influenza import Influenza
from sbi_models.types import Array, FloatArray, Variables

MODEL = Influenza()
WIDEST = np.array([[0.0, 6.0], [0.0, 2.5], [0.0, 2.5]])
"""Where the posterior is looked for: nearly all of the prior."""

GRIDS = ((24, 24, 20), (24, 24, 20), (24, 24, 20), (56, 56, 40))
"""Cells of one grid after the other, each of which covers what the one before has found to matter."""

NEGLIGIBLE, NUM_DRAWS = 1e-6, 10_000


class InfluenzaStudy:
    """Rates of infection and recovery and their ratio R0; the exact posterior is a sum over a grid."""

    simulator = MODEL.simulator
    parameter_names: ClassVar[dict[str, list[str]]] = {"theta": list(MODEL.names)}
    quantities = (
        Quantity("beta", "1/day"),
        Quantity("gamma", "1/day"),
        Quantity("R0", ""),
        Quantity("1 / phi", ""),
    )
    data_set_name = "data"

    def observations(self) -> tuple[list[str], Variables]:
        """Boys in bed."""
        return ["school"], {"x": MODEL.observed[None]}

    def evaluate(self, draws: Variables) -> list[Array]:
        """beta, gamma, R0 = beta / gamma, and 1 / phi."""
        beta, gamma, inverse_phi = np.moveaxis(draws["theta"], -1, 0)
        return [beta, gamma, beta / gamma, inverse_phi]

    def references(self, observations: Variables) -> list[list[Reference]]:
        """Of the exact draws."""
        return [
            [Reference.of_draws(values) for values in self.evaluate(draws)]
            for draws in self.reference_draws(observations)
        ]

    def reference_draws(self, observations: Variables) -> list[Variables]:
        """Draws from a grid, uniform within its cells."""
        return [{"theta": exact_draws(tuple(x))} for x in observations["x"]]


@cache
def exact_draws(x: tuple[float, ...]) -> FloatArray:
    """Draws (10 000, 3) of the posterior given boys in bed on 14 days, raw space, from a refined grid."""
    box = WIDEST
    for cells in GRIDS:
        steps = (box[:, 1] - box[:, 0]) / cells
        axes = [
            low + step * (np.arange(n) + 0.5) for low, step, n in zip(box[:, 0], steps, cells, strict=True)
        ]
        theta = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        density = np.stack([MODEL.log_joint(slab, np.array(x)) for slab in theta])
        share = np.exp(density - density.max())
        share /= share.sum()
        start, box = box[:, 0], box.copy()
        for k in range(3):
            inside = np.flatnonzero(share.sum(axis=tuple({0, 1, 2} - {k})) > NEGLIGIBLE)
            box[k] = axes[k][inside[0]] - steps[k], axes[k][inside[-1]] + steps[k]
        box = np.clip(box, WIDEST[:, :1], WIDEST[:, 1:])
    rng = np.random.default_rng(0)
    chosen = np.stack(
        np.unravel_index(rng.choice(share.size, NUM_DRAWS, p=share.ravel()), share.shape), axis=1
    )
    return np.asarray(start + steps * (chosen + rng.uniform(size=chosen.shape)))


STUDY = InfluenzaStudy()
