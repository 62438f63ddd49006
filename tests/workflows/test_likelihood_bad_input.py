"""Calls of learned likelihoods that are refused, in words."""

import numpy as np
import pytest
import torch
from linear_elements import fitted, linear, workflow
from torch.distributions import Bernoulli, Normal

import sbi_models as bf
from sbi_models.errors import ConfigurationError, DataError


@pytest.fixture(scope="module")
def trained():
    return fitted()


@pytest.mark.parametrize("x", [np.full((2, 3, 2), np.nan), [np.ones((2, 2)), np.array([[np.nan, 1.0]])]])
def test_missing_elements_are_refused(trained, x):
    """NaN in an element, with the advice to leave it out."""
    with pytest.raises(DataError, match="Leave those elements out"):
        trained.sample(num_samples=10, conditions={"x": x})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": None}, "Expected parameters and observables"),
        ({"observables": []}, "Expected parameters and observables"),
        ({"iid": "rows"}, "Expected iid"),
        ({"parameters": ["mu", "x"]}, "in one role"),
        ({"network": "consistency_model"}, "with a density"),
        ({"parameter": "mu"}, "no argument"),
        ({"prior": {"mu": Bernoulli(torch.full((2,), 0.5))}}, "continuous prior"),
    ],
)
def test_bad_arguments_are_told(arguments, message):
    """Before anything is simulated."""
    with pytest.raises(ConfigurationError, match=message):
        workflow(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": Normal(0.0, 1.0)}, "dict of torch distributions"),
        ({"prior": {"m": Normal(0.0, 1.0)}}, "Did you mean 'mu'"),
        ({"prior": {"mu": Normal(0.0, 1.0)}}, "2 components"),
        ({"prior": {"shift": lambda: 0}}, "torch distributions of parameters"),
        ({"prior": {"shift": Bernoulli(0.5)}}, "continuous prior"),
        ({"method": "nuts"}, "Unknown method"),
        ({"method": "importance"}, "Expected proposal="),
    ],
)
def test_bad_calls_are_told(trained, arguments, message):
    """Priors of other names, shapes and kinds, and methods that are none."""
    with pytest.raises(ConfigurationError, match=message):
        trained.sample(num_samples=10, conditions={"x": np.zeros((1, 2))}, **arguments)


def test_a_prior_that_is_a_function_needs_a_density():
    """The error says to pass prior=, and with it there are draws."""

    def prior(batch_size, rng):
        return {"mu": rng.normal(size=(batch_size, 1))}

    simulator = bf.make_simulator([prior, lambda mu, rng: {"x": rng.normal(mu)}], is_batched=True)
    made = bf.LikelihoodWorkflow(
        simulator, parameters="mu", observables="x", network=linear(), seed=1, progress=False
    )
    made.fit_offline(simulator.sample(500, seed=1), epochs=1)
    with pytest.raises(ConfigurationError, match="Pass prior="):
        made.sample(num_samples=10, conditions={"x": np.zeros((1, 1))})
    draws = made.sample(num_samples=10, conditions={"x": np.zeros((1, 1))}, prior=Normal(0.0, 1.0), seed=1)
    assert draws["mu"].shape == (1, 10, 1)
