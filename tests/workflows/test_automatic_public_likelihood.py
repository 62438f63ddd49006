"""The likelihood that "auto" has learned on its way, as a workflow, for normal data of known densities."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from torch.distributions import Normal, Poisson

import sbi_models as bf
from sbi_models.workflows.auto import schedules, selection

NOISE = 0.5


def observe(theta, rng):
    return {"x": theta + NOISE * rng.normal(size=theta.shape)}


@pytest.fixture(scope="module")
def quick():
    """Short trainings of "auto"."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_SYNTHETIC", 2_000)
        patch.setattr(selection, "_PRIOR_DRAWS", 1_000)
        schedule = schedules.TrainingSchedule(256, 5, 3e-3, 0.0, 0.99)
        patch.setattr(schedules, "for_synthetic_data", lambda number: schedule)
        schedule = schedules.TrainingSchedule(128, 20, 2e-3, 0.0, 0.99)
        patch.setattr(schedules, "for_simulations", lambda number: schedule)
        yield


def trained(prior, likelihood, folder=None):
    simulator = bf.make_simulator([{"theta": prior}, likelihood], is_batched=True)
    workflow = bf.BasicWorkflow(
        simulator,
        inference_variables="theta",
        inference_conditions="x",
        inference_network="auto",
        checkpoint_filepath=folder,
        checkpoint_name="mine",
        seed=1,
        progress=False,
    )
    workflow.fit_offline(simulator.sample(1_000, seed=1))
    return workflow


def test_it_has_log_likelihoods_and_posteriors_for_any_prior(quick, tmp_path: Path):
    """Densities to 0.15 nats, the posterior under a prior of half the width to 0.3 sd and 15 %; the file
    beside the model has the same likelihood and the prior, and needs no simulator."""
    # seconds: "auto" trains several networks, and chains are drawn
    automatic = trained(Normal(0.0, 1.0).expand((1,)), observe, tmp_path).automatic
    assert automatic is not None
    likelihood = automatic.likelihood
    assert isinstance(likelihood, bf.LikelihoodWorkflow)
    data = {"theta": np.array([[0.2], [-1.0]]), "x": np.array([[0.3], [-0.6]])}
    exact = stats.norm.logpdf(data["x"], data["theta"], NOISE)[:, 0]
    np.testing.assert_allclose(likelihood.log_likelihood(data), exact, atol=0.15)
    tighter = {"theta": Normal(0.0, 0.5).expand((1,))}
    draws = likelihood.sample(num_samples=1_000, conditions={"x": data["x"][:1]}, prior=tighter, seed=1)
    precision = 1 / NOISE**2 + 4
    assert abs(draws["theta"].mean() - 0.3 / NOISE**2 / precision) < 0.3 / np.sqrt(precision)
    np.testing.assert_allclose(draws["theta"].std(), precision**-0.5, rtol=0.15)
    again = bf.LikelihoodWorkflow(network=bf.load(tmp_path / "mine.likelihood.safetensors"))
    np.testing.assert_array_equal(again.log_likelihood(data), likelihood.log_likelihood(data))
    assert again.priors["theta"].scale.tolist() == [1.0]


def test_whole_numbers_have_no_public_likelihood(quick):
    """Their densities are those of numbers spread over intervals: none, rather than one of others."""
    workflow = trained(
        Normal(1.0, 0.5).expand((1,)), lambda theta, rng: {"x": rng.poisson(np.exp(theta)).astype(float)}
    )
    assert workflow.automatic.choices["likelihood"]
    assert workflow.automatic.likelihood is None


def test_discrete_parameters_have_none(quick):
    """Their posterior is not drawn by gradients; the training is as before."""
    workflow = trained(Poisson(3.0).expand((1,)), observe)
    assert workflow.automatic.likelihood is None
    assert workflow.sample(num_samples=3, conditions={"x": np.ones((1, 1))}, seed=1)["theta"].shape == (
        1,
        3,
        1,
    )
