"""Importance weights by a learned likelihood: corrected draws, certificates and sequential rounds, against
conjugate posteriors of sets of normal numbers."""

import numpy as np
import pytest
from scipy import stats
from torch.distributions import Normal

import sbi_models as bf
from sbi_models.errors import ConfigurationError
from sbi_models.networks import AutoregressiveMixture, DeepSet

NOISE, COUNT = 0.8, 4
PRIOR = {"mu": Normal(0.5, 1.0).expand((1,))}
SIMULATOR = bf.make_simulator(
    [PRIOR, lambda mu, rng: {"x": mu[:, None] + NOISE * rng.normal(size=(len(mu), COUNT, 1))}],
    is_batched=True,
)
SETS = [[1.4, 1.0, 0.9, 2.1], [-0.3, 0.2, -0.5, 0.4]]
X = np.array(SETS)[..., None]
SD = (1 + COUNT / NOISE**2) ** -0.5
MEAN = (0.5 + X.sum(axis=1)[:, 0] / NOISE**2) * SD**2


@pytest.fixture(scope="module")
def likelihood():
    """The density of one number, which its network has from its start by least squares."""
    workflow = bf.LikelihoodWorkflow(
        SIMULATOR,
        parameters="mu",
        observables="x",
        iid="sets",
        network=AutoregressiveMixture(1, trunk_width=0, head_width=8, head_blocks=0),
        initial_learning_rate=1e-7,
        seed=1,
        progress=False,
    )
    workflow.fit_offline(SIMULATOR.sample(10_000, seed=1), epochs=1, batch_size=10_000)
    return workflow


def posterior(simulator=SIMULATOR, number=100, seed=1, **arguments):
    """A posterior that has seen few simulations."""
    workflow = bf.BasicWorkflow(
        simulator,
        inference_variables="mu",
        summary_variables="x",
        inference_network=AutoregressiveMixture(2, trunk_width=0, head_width=8),
        summary_network=DeepSet(summary_dim=2, widths=(8,), head_widths=(8,)),
        seed=seed,
        progress=False,
        **arguments,
    )
    data = simulator.sample(number, seed=seed)
    workflow.fit_offline({name: data[name] for name in ("mu", "x")}, epochs=5, batch_size=50)
    return workflow


@pytest.fixture(scope="module")
def wrong():
    return posterior()


def test_corrected_draws_are_those_of_the_conjugate_posterior(wrong, likelihood):
    """Means to 0.1 sd and sds to 8 %, where the posterior's own are further off; log evidence to 0.1 nats."""
    own = wrong.sample(num_samples=2_000, conditions={"x": X}, seed=2)["mu"][..., 0]
    draws, reports = wrong.importance_sample(
        num_samples=2_000, conditions={"x": X}, log_likelihood=likelihood, seed=2
    )
    found = draws["mu"][..., 0]
    assert max(np.abs(own.mean(axis=1) - MEAN).max() / SD, np.abs(own.std(axis=1) / SD - 1).max()) > 0.15
    np.testing.assert_allclose(found.mean(axis=1), MEAN, atol=0.1 * SD)
    np.testing.assert_allclose(found.std(axis=1), SD, rtol=0.08)
    exact = stats.multivariate_normal(np.full(COUNT, 0.5), NOISE**2 * np.eye(COUNT) + 1).logpdf(SETS)
    np.testing.assert_allclose([report.log_evidence for report in reports], exact, atol=0.1)


def test_certificates_tell_how_far_a_posterior_is_from_the_implied_one(wrong, likelihood):
    """Effective shares and k as by the exact likelihood, a function."""

    def exact(mu, x):
        return stats.norm.logpdf(x[..., 0], mu, NOISE).sum(axis=1)

    options = {"num_replicates": 0, "seed": 3}
    by_network = wrong.certify({"x": X}, log_likelihood=likelihood, **options)
    by_formula = wrong.certify({"x": X}, log_likelihood=exact, **options)
    for learned, known in zip(by_network, by_formula, strict=True):
        assert learned.effective_sample_size == pytest.approx(known.effective_sample_size, abs=0.05)
        assert learned.pareto_k == pytest.approx(known.pareto_k, abs=0.25)
    assert by_network[0].effective_sample_size < 0.99


def test_a_sequential_proposal_needs_no_likelihood_by_hand(wrong, likelihood):
    """Draws of a round near one data set, weighted under the prior of the likelihood's simulations."""
    near = bf.workflows.sequential_proposal(SIMULATOR, wrong.approximator, {"x": X[:1]}, seed=4)
    second = posterior(near, number=1_000, seed=5)
    draws, (report,) = second.importance_sample(
        num_samples=2_000, conditions={"x": X[:1]}, log_likelihood=likelihood, seed=6
    )
    assert report.is_reliable
    np.testing.assert_allclose(draws["mu"][0, :, 0].mean(), MEAN[0], atol=0.1 * SD)
    np.testing.assert_allclose(draws["mu"][0, :, 0].std(), SD, rtol=0.08)


def test_rows_of_several_data_sets_are_their_own(likelihood):
    """As a function of variables it gives what `log_likelihood` gives, for data repeated or not."""
    function = likelihood.log_density_of(["mu"], ["x", "other"])
    mu = np.array([[0.0], [1.0]])
    np.testing.assert_array_equal(function(mu=mu, x=X), likelihood.log_likelihood({"mu": mu, "x": X}))
    repeated = np.broadcast_to(X[0], (2, COUNT, 1))
    np.testing.assert_allclose(
        function(mu=mu, x=repeated), likelihood.log_likelihood({"mu": mu, "x": repeated.copy()}), rtol=1e-6
    )


def test_a_likelihood_of_other_variables_is_refused(wrong, likelihood):
    """Before anything is drawn."""
    other = bf.BasicWorkflow(
        inference_variables="nu",
        inference_conditions="x",
        inference_network=AutoregressiveMixture(2, trunk_width=0, head_width=8),
        seed=1,
    )
    rows = np.random.default_rng(1).normal(size=(64, 1))
    other.approximator.build({"nu": rows, "x": rows}, seed=1)
    for call in (
        other.certify,
        lambda x, **rest: other.importance_sample(num_samples=5, conditions=x, **rest),
    ):
        with pytest.raises(
            ConfigurationError, match="Expected a likelihood of x given nu, got one of x given mu"
        ):
            call({"x": rows[:1]}, log_likelihood=likelihood)
