"""Two rounds of simulation, the second near one observation, against an exact posterior."""

import numpy as np
import pytest
from linear_gaussian import SD, SIMULATOR, exact_mean, log_likelihood, log_prior, workflow

from sbi_models import make_simulator
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import AutoregressiveMixture
from sbi_models.simulators import SimulatorWithProposal
from sbi_models.workflows import narrow, sequential_proposal

pytestmark = pytest.mark.xdist_group("proposals")  # one process trains what these tests share

X = np.array([[1.9, -1.2]])


@pytest.fixture(scope="module")
def rough():
    """A posterior that has seen a hundred simulations for five epochs."""
    made = workflow(inference_network=AutoregressiveMixture(3, trunk_width=0, head_width=8))
    made.fit_offline(SIMULATOR.sample(100, seed=1), epochs=5, batch_size=50)
    return made


def test_the_second_round_is_near_the_observation_and_weights_lead_to_the_exact_posterior(rough):
    """The prior is three times as wide as the first posterior; the resampled draws have the exact moments
    under the wide prior.

    Means within 4 standard errors, sds within 8 %. The network's own draws are those under the narrow prior,
    which pulls them.
    """
    near = sequential_proposal(SIMULATOR, rough.approximator, {"x": X}, seed=1)
    first = rough.sample(num_samples=10_000, conditions={"x": X}, seed=2)["theta"][0]
    np.testing.assert_allclose(np.sqrt(np.diag(near.prior.covariance)), 3 * first.std(axis=0), rtol=0.05)
    np.testing.assert_allclose(near.prior.mean, first.mean(axis=0), atol=0.1 * SD)
    again = workflow(simulator=near, inference_network=AutoregressiveMixture(3, trunk_width=0, head_width=8))
    again.fit_offline(near.sample(1_000, seed=3), epochs=8, batch_size=50)
    draws, (report,) = again.importance_sample(
        num_samples=4_000, conditions={"x": X}, log_likelihood=log_likelihood, log_prior=log_prior, seed=3
    )
    assert report.is_reliable
    error = SD / np.sqrt(min(4_000, report.effective_draws))
    assert np.abs(draws["theta"][0].mean(axis=0) - exact_mean(X[0])).max() < 4 * error
    assert np.abs(draws["theta"][0].std(axis=0) / SD - 1).max() < 0.08
    assert report.effective_draws > 0.3 * report.num_proposals


def test_a_proposal_of_a_proposal_replaces_the_prior_of_the_original(rough):
    """A third round has a prior in place of that of the second, of the same original."""
    near = sequential_proposal(SIMULATOR, rough.approximator, {"x": X}, seed=1)
    further = sequential_proposal(near, rough.approximator, {"x": X}, seed=1)
    assert isinstance(further, SimulatorWithProposal)
    assert further.original is SIMULATOR
    np.testing.assert_array_equal(further.prior.mean, near.prior.mean)


def test_one_data_set_at_a_time_and_a_simulator_that_fits(rough):
    """Two data sets, and a simulator that draws other parameters, are errors."""
    with pytest.raises(DataError, match="got 2"):
        sequential_proposal(SIMULATOR, rough.approximator, {"x": np.concatenate([X, X])})
    other = make_simulator([lambda rng: {"beta": rng.normal(size=2)}, lambda beta, rng: {"x": beta}])
    with pytest.raises(ConfigurationError, match="draw theta"):
        sequential_proposal(other, rough.approximator, {"x": X})


def test_the_former_name_warns_and_does_the_same(rough):
    """`narrow` gives the proposal of `sequential_proposal`, with a FutureWarning that names it."""
    with pytest.warns(FutureWarning, match="called workflows.sequential_proposal now"):
        former = narrow(SIMULATOR, rough.approximator, {"x": X}, seed=1)
    present = sequential_proposal(SIMULATOR, rough.approximator, {"x": X}, seed=1)
    np.testing.assert_array_equal(former.prior.mean, present.prior.mean)
