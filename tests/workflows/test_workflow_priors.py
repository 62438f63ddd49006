"""A prior that is a torch distribution keeps every draw inside its support."""

import numpy as np
import pytest
import torch
from linear_gaussian import workflow
from torch.distributions import Gamma, Normal, Uniform

from sbi_models import Adapter, BasicWorkflow, make_simulator
from sbi_models.errors import ConfigurationError, DataError

LOW, HIGH = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 5.0])


def noisy(theta, rng):
    return {"x": theta + 0.5 * rng.normal(size=theta.shape)}


BOX = Uniform(LOW, HIGH)
SIMULATOR = make_simulator([{"theta": BOX}, noisy], is_batched=True)


def inside(theta):
    return (theta > LOW.numpy()) & (theta < HIGH.numpy())


def test_draws_stay_inside_the_prior_of_the_simulator():
    """A uniform prior among the functions of the simulator bounds every draw, far out too; outside of it the
    density is -inf."""
    made = workflow(simulator=SIMULATOR)
    made.fit_online(epochs=1, num_batches_per_epoch=5)
    test = SIMULATOR.sample(20, seed=1)
    far = {"x": test["x"] + np.where(np.arange(20)[:, None] % 2, 30.0, -30.0)}
    for conditions in (test, far):
        assert inside(made.sample(num_samples=500, conditions=conditions, seed=2)["theta"]).all()
    density = made.log_prob(
        test | {"theta": np.where(np.arange(20)[:, None] < 5, test["theta"] + 10.0, test["theta"])}
    )
    assert np.isneginf(density[:5]).all()
    assert np.isfinite(density[5:]).all()
    np.testing.assert_allclose(
        density[5:], made.log_prob({name: value[5:] for name, value in test.items()}), rtol=1e-5
    )


def test_conditions_of_rows_outside_are_checked_too():
    """A row outside the support with a broken condition is an error, not -inf."""
    made = workflow(simulator=SIMULATOR)
    made.fit_online(epochs=1, num_batches_per_epoch=2)
    with pytest.raises(DataError, match="variable 'x'"):
        made.log_prob({"theta": np.full((2, 2), 99.0), "x": np.array([[0.0, 1.0], [np.nan, 0.0]])})


def test_the_density_of_a_bounded_posterior_integrates_to_one():
    """exp(log_prob) of one parameter between bounds, Jacobian and all, has integral 1 over the interval."""
    simulator = make_simulator([{"theta": Uniform(2.0, 5.0)}, noisy], is_batched=True)
    made = workflow(simulator=simulator)
    made.fit_online(epochs=2, num_batches_per_epoch=50, batch_size=64)
    grid = np.linspace(2.0, 5.0, 2003)[1:-1]
    density = np.exp(made.log_prob({"theta": grid, "x": np.full(len(grid), 3.0)}))
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("prior", [{"theta": Gamma(2.0, 1.0)}, Gamma(2.0, 1.0)])
def test_a_prior_may_be_an_argument(prior):
    """prior= bounds the draws of a workflow without a simulator."""
    data = {"theta": np.abs(np.random.default_rng(0).normal(size=100)), "x": np.zeros((100, 1))}
    made = BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        prior=prior,
        seed=0,
        progress=False,
        accelerator="cpu",
    )
    made.fit_offline(data, epochs=1)
    assert made.sample(num_samples=1000, conditions=data, seed=1)["theta"].min() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": {"thta": BOX}}, r"got Uniform.* for 'thta'. Did you mean 'theta'"),
        ({"prior": {"theta": "normal"}}, r"torch distributions of inferred variables, got 'normal'"),
        ({"prior": BOX, "adapter": Adapter()}, r"adapter\.constrain\(name, prior=\.\.\.\)"),
        (
            {"prior": Normal(0.0, 1.0), "inference_variables": ["theta", "x"], "inference_conditions": "c"},
            "one for each of",
        ),
    ],
)
def test_priors_that_do_not_fit_are_refused(arguments, message):
    """A prior of an unknown variable, no distribution, one for several variables, and a prior beside an
    adapter are refused."""
    with pytest.raises(ConfigurationError, match=message):
        workflow(**arguments)
