"""Sequential simulation: a proposal prior near one observation, for a second round of simulations.

The proposal is a Gaussian around a first posterior, wider than it by a factor; weights of the joint density
under the original prior make the draws of the second round exact.
"""

import warnings
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.discrete import discrete_variables_of
from sbi_models.approximators.validation import as_variables
from sbi_models.arguments import positive_int
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.simulators import NormalProposal, Simulator, SimulatorWithProposal
from sbi_models.simulators.proposal import functions_that_draw
from sbi_models.types import VariablesLike
from sbi_models.workflows.auto.transforms import parameter_bounds

_PRIOR_DRAWS = 200_000


def sequential_proposal(
    simulator: Simulator,
    approximator: Approximator,
    conditions: VariablesLike,
    *,
    widening: float = 3.0,
    num_samples: int = 10_000,
    seed: int | None = None,
) -> SimulatorWithProposal:
    """Simulator with a proposal prior around the posterior of one data set, for the next round.

    Train on its simulations, and draw with `workflow.importance_sample`, which weights by the joint density
    under the original prior. Such an approximator is for this data set alone, and its own draws are those
    under the proposal.

    >>> import numpy as np, sbi_models as bf
    >>> def prior(batch_size, rng):
    ...     return {"theta": rng.normal(size=(batch_size, 1))}
    >>> def observe(theta, rng):
    ...     return {"x": theta + 0.1 * rng.normal(size=theta.shape)}
    >>> simulator = bf.make_simulator([prior, observe], is_batched=True, block_size=100_000)
    >>> workflow = bf.BasicWorkflow(
    ...     simulator, inference_variables="theta", inference_conditions="x", seed=1,
    ...     inference_network=bf.networks.CouplingFlow(depth=1, widths=(8,)))
    >>> _ = workflow.fit_offline(simulator.sample(50, seed=1), epochs=1)
    >>> observed = {"x": np.ones((1, 1))}
    >>> near = bf.workflows.sequential_proposal(simulator, workflow.approximator, observed, seed=1)
    >>> near.sample(5, seed=2)["x"].shape
    (5, 1)

    Args:
        simulator: its first functions draw the inference variables and nothing else.
        approximator: approximator of a first round; it may be rough.
        conditions: one data set, variables of shape (1, ...), raw space.
        widening: sds of the proposal over those of the posterior draws, in the space in which parameters have
            no bounds.
        num_samples: number of posterior draws that the proposal is fitted to.
        seed: seed of these draws.

    Raises:
        ConfigurationError: if the simulator does not fit, or a parameter is discrete: normal draws are no
            categories and no counts.
        DataError: if there is not one data set.
    """
    seed, names = seeding.resolve(seed), approximator.inference_names
    observed = as_variables(
        conditions, approximator.condition_names, what="conditions", may_miss=approximator.may_miss
    )
    if discrete := discrete_variables_of(approximator):
        raise ConfigurationError(
            f"Expected continuous parameters for a proposal, which is normal, got "
            f"{', '.join(map(repr, discrete))}, declared discrete. Simulate more from the prior instead."
        )
    number = len(next(iter(observed.values())))
    if number != 1:
        raise DataError(
            f"Expected one data set to make a proposal for, got {number}. Make one for each of them."
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


def narrow(
    simulator: Simulator, approximator: Approximator, conditions: VariablesLike, **options: Any
) -> SimulatorWithProposal:
    """Former name of `sequential_proposal`; it goes with the next release."""
    warnings.warn(
        "workflows.narrow is called workflows.sequential_proposal now, with the same arguments.",
        FutureWarning,
        stacklevel=2,
    )
    return sequential_proposal(simulator, approximator, conditions, **options)
