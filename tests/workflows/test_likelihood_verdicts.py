"""Diagnostics of learned likelihoods: of the posterior that they imply, of observables, and log scores, for
normal numbers whose density is exact, or wrong by as much as is known."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

import sbi_models as bf
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import AutoregressiveMixture

NOISE = 0.8
PRIOR = {"mu": Normal(0.5, 1.0).expand((1,))}


def simulator_of(shift=0.0, noise=NOISE, count=None):
    """Numbers around mu, or sets of them."""

    def observe(mu, rng):
        shape = mu.shape if count is None else (len(mu), count, 1)
        return {"x": (mu if count is None else mu[:, None]) + shift + noise * rng.normal(size=shape)}

    return bf.make_simulator([PRIOR, observe], is_batched=True)


def trained(simulator, **arguments):
    """A likelihood that its network has from its start by least squares."""
    workflow = bf.LikelihoodWorkflow(
        simulator,
        parameters="mu",
        observables="x",
        network=AutoregressiveMixture(1, trunk_width=0, head_width=8, head_blocks=0),
        initial_learning_rate=1e-7,
        seed=1,
        progress=False,
        **arguments,
    )
    workflow.fit_offline(simulator.sample(50_000, seed=1), epochs=1, batch_size=50_000)
    return workflow


def judged_by(simulator, workflow):
    """The workflow of a likelihood with another simulator, whose simulations it is judged by."""
    return bf.LikelihoodWorkflow(simulator, network=workflow.approximator)


@pytest.fixture(scope="module")
def right():
    return trained(simulator_of(), iid="elements")


@pytest.mark.parametrize(("number", "num_elements"), [(40, None), (20, 20)])
def test_a_right_likelihood_implies_calibrated_posteriors(right, number, num_elements):
    """Of single numbers, and of sets of twenty."""
    # seconds: chains of so many data sets
    verdict = right.posterior_verdict(number, 50, num_elements=num_elements, seed=2)
    assert verdict.is_calibrated, str(verdict)
    assert verdict.num_datasets == number
    assert [one.name for one in verdict.parameters] == ["mu"]


@pytest.mark.nightly
def test_small_errors_of_an_element_add_up(right):
    """A shift of 0.15 sd is no flaw that thirty single numbers show; of a hundred each it is one and a half
    posterior sds, and called biased."""
    # seconds: chains of sixty data sets, of thousands of elements in all
    wrong = judged_by(simulator_of(shift=0.15 * NOISE), right)
    assert wrong.posterior_verdict(30, 50, seed=3).is_calibrated
    verdict = wrong.posterior_verdict(30, 50, num_elements=100, seed=3)
    assert verdict.label == "biased", str(verdict)


def test_simulations_that_are_sets_are_judged_as_they_are():
    """Posteriors by sets, which a noise twice as small makes under-confident; observables by elements."""
    simulator = simulator_of(count=5)
    workflow = trained(simulator, iid="sets")
    data = simulator.sample(60, seed=4)
    assert workflow.verdict(data, 100, seed=5).is_calibrated
    sharper = simulator_of(noise=NOISE / 2, count=5)
    observables = judged_by(sharper, workflow).verdict(60, 100, seed=6)
    assert observables.num_datasets == 300
    assert observables.label == "under-confident"
    # seconds: chains of thirty data sets
    posterior = judged_by(sharper, workflow).posterior_verdict(30, 50, seed=6)
    assert posterior.num_datasets == 30
    assert posterior.label == "under-confident"


def test_ranks_of_observables_tell_a_wrong_density(right):
    """A noise twice as large is over-confident."""
    assert right.verdict(500, 200, seed=7).is_calibrated
    assert judged_by(simulator_of(noise=2 * NOISE), right).verdict(500, 200, seed=7).label == "over-confident"


def test_log_scores_differ_by_the_divergence(right):
    """That of the true density within its error, and lower by the divergence between normals elsewhere."""
    simulator = simulator_of()
    data = simulator.sample(20_000, seed=8)
    exact = stats.norm.logpdf(data["x"], data["mu"], NOISE).mean()
    assert right.log_score(data) == pytest.approx(exact, abs=0.005)
    other = simulator_of(noise=1.5 * NOISE)
    data = other.sample(20_000, seed=9)
    entropy = -stats.norm.logpdf(data["x"], data["mu"], 1.5 * NOISE).mean()
    divergence = torch.distributions.kl_divergence(Normal(0.0, 1.5 * NOISE), Normal(0.0, NOISE)).item()
    assert right.log_score(data) == pytest.approx(-entropy - divergence, abs=0.02)
    assert right.log_score(500, seed=1) == right.log_score(500, seed=1)


def test_numbers_of_elements_are_for_simulated_elements(right):
    """Elsewhere they are refused before anything is drawn."""
    data = simulator_of().sample(30, seed=1)
    with pytest.raises(ConfigurationError, match="Expected num_elements with iid"):
        right.posterior_verdict(data, num_elements=3)
    with pytest.raises(ConfigurationError, match="num_elements as a positive integer"):
        right.posterior_verdict(30, num_elements=0)
    with pytest.raises(DataError, match="'mu' is missing"):
        right.posterior_verdict({"x": np.zeros((30, 1))})
