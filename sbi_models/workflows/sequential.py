"""A second round of simulations, near one observation: where a first posterior is, its prior is narrowed
to."""

import numpy as np

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.validation import as_variables
from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.simulators import NormalProposal, Simulator, SimulatorWithProposal
from sbi_models.simulators.proposal import functions_that_draw
from sbi_models.types import VariablesLike
from sbi_models.workflows.auto.transforms import parameter_bounds

_PRIOR_DRAWS = 200_000


def narrow(
    simulator: Simulator,
    approximator: Approximator,
    conditions: VariablesLike,
    *,
    widening: float = 3.0,
    num_samples: int = 10_000,
    seed: int | None = None,
) -> SimulatorWithProposal:
    """The simulator with a prior around the posterior of one data set, for the next round of simulations.

    Train on its simulations, and draw with `workflow.importance_sample`, which weights by the joint density
    under the wide prior. What is trained so is for this data set alone, and its own draws are those under the
    narrower prior.

    Args:
        simulator: its first functions draw the inference variables and nothing else.
        approximator: approximator of a first round; it may be rough.
        conditions: one data set, variables of shape (1, ...), raw space.
        widening: sds of the prior over those of the posterior draws, in the space in which parameters have no
            bounds.
        num_samples: posterior draws that are looked at.
        seed: seed of these.

    Raises:
        ConfigurationError: if the simulator does not fit.
        DataError: if there is not one data set.
    """
    seed, names = seeding.resolve(seed), approximator.inference_names
    observed = as_variables(
        conditions, approximator.condition_names, what="conditions", may_miss=approximator.may_miss
    )
    number = len(next(iter(observed.values())))
    if number != 1:
        raise DataError(
            f"Expected one data set to narrow the prior for, got {number}. Narrow it for each of "
            "them by itself."
        )
    if any(len(approximator.shapes[name]) != 1 for name in names):
        raise ConfigurationError(
            f"Expected parameters of shape (n, width), got {approximator.shapes}. Flatten them in "
            "the simulator."
        )
    draws = approximator.sample(
        num_samples=positive_int(num_samples, "num_samples"), conditions=observed, seed=seed
    )
    original = simulator.original if isinstance(simulator, SimulatorWithProposal) else simulator
    first = functions_that_draw(original, {name: approximator.shapes[name][0] for name in names})
    wide = original.first(first).sample(_PRIOR_DRAWS, seed=seeding.derive(seed, "bounds"), progress=False)
    lower, upper = parameter_bounds(np.concatenate([wide[name] for name in names], axis=1))
    low, high = (
        np.array([none if b is None else b for b in side])
        for side, none in ((lower, -np.inf), (upper, np.inf))
    )
    return SimulatorWithProposal(
        original, NormalProposal.around({name: draws[name][0] for name in names}, low, high, widening)
    )
