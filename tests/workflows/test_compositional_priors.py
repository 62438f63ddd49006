"""CompositionalWorkflow with priors that are torch distributions, and made of a BasicWorkflow."""

import warnings

import numpy as np
import pytest
import torch
from compositional_models import compositional, items, prior_score
from linear_gaussian import SIMULATOR, workflow
from torch.distributions import Independent, Uniform

import sbi_models as bf
from sbi_models.errors import TrustWarning
from sbi_models.networks import DiffusionModel

CONDITIONS = items(1, 4, seed=2)
LOW, HIGH = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 5.0])


def weights(made):
    return {name: value.clone() for name, value in made.approximator.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def untrusted():
    """Warnings of networks that were hardly trained, left aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        yield


@pytest.fixture(scope="module")
def bounded():
    def noisy(theta, rng):
        return {"x": theta + 0.5 * rng.normal(size=theta.shape)}

    prior = {"theta": Independent(Uniform(LOW, HIGH), 1)}
    made = compositional(simulator=bf.make_simulator([prior, noisy], is_batched=True))
    made.fit_online(epochs=2, num_batches_per_epoch=50, batch_size=64)
    return made, prior


@pytest.mark.nightly
def test_priors_of_the_simulator_are_taken(bounded, untrusted):
    """A torch distribution in the simulator is the prior of compositions: the same draws as with it passed,
    to the bit."""
    made, prior = bounded
    arguments = {"num_samples": 30, "conditions": {"x": np.full((1, 3, 2), [0.2, 3.0])}, "seed": 1}
    arguments["calibration_simulations"] = 0
    first = made.compositional_sample(**arguments)["theta"]
    for given in (prior, prior["theta"]):
        np.testing.assert_array_equal(
            first, made.compositional_sample(**arguments, compute_prior_score=given)["theta"]
        )


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["calibrated", "gauss", "langevin"])
def test_draws_stay_inside_the_support(bounded, untrusted, method):
    """Items on the edge and far outside of a uniform prior leave no draw outside of it."""
    made, _ = bounded
    x = np.stack([np.full((3, 2), middle) for middle in ([0.95, 2.05], [1.4, 5.5])])
    number = {"calibrated": 500, "gauss": 50, "langevin": 20}[method]
    draws = made.compositional_sample(num_samples=number, conditions={"x": x}, method=method, seed=1)["theta"]
    assert ((draws > LOW.numpy()) & (draws < HIGH.numpy())).all()


@pytest.mark.nightly
def test_from_a_basic_workflow(untrusted, tmp_path):
    """A trained workflow's copy has its weights, history and simulator, composes, is saved, and trains on
    without moving the original."""
    basic = workflow(
        inference_network=DiffusionModel(widths=(16, 16), steps=8, density_steps=2, drop_conditions=0.2)
    )
    history = basic.fit_online(epochs=1, num_batches_per_epoch=5)
    before = weights(basic)
    made = bf.CompositionalWorkflow.from_basic_workflow(basic)
    assert made.simulator is SIMULATOR
    assert made.history.history == history.history
    test = SIMULATOR.sample(5, seed=3)
    np.testing.assert_array_equal(
        made.sample(num_samples=3, conditions=test, seed=1)["theta"],
        basic.sample(num_samples=3, conditions=test, seed=1)["theta"],
    )
    assert not made.approximator.shared_bias.is_known
    few = {"calibration_simulations": 100, "noise": 0.05}
    for more in (few | {"compute_prior_score": prior_score}, {"calibration_simulations": 0}):
        draws = made.compositional_sample(num_samples=5, conditions=CONDITIONS, seed=1, **more)["theta"]
        assert np.isfinite(draws).all()
    loaded = bf.load(str(made.approximator.save(tmp_path / "model")))
    again = loaded.compositional_sample(num_samples=5, conditions=CONDITIONS, seed=1)["theta"]
    np.testing.assert_array_equal(again, draws)
    made.fit_online(epochs=1, num_batches_per_epoch=2)
    assert made.approximator.shared_bias.is_known
    assert equal(before, weights(basic))
    assert not torch.equal(
        weights(made)["inference_network.no_conditions"], before["inference_network.no_conditions"]
    )
    other = bf.make_simulator([lambda rng: {"theta": rng.normal(size=2), "x": rng.normal(size=2)}])
    assert bf.CompositionalWorkflow.from_basic_workflow(basic, simulator=other).simulator is other
