"""Learned likelihoods in corners: data sets without elements, members and conditions of several kinds,
against exact normal densities, and calls that are refused in words."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

import sbi_models as bf
from sbi_models.approximators import EnsembleApproximator
from sbi_models.approximators.element_likelihood import ElementLikelihood
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.workflows.likelihood.prior import Prior
from sbi_models.workflows.likelihood.target import PosteriorTarget

NOISE = 0.8


def trained(priors, observe, seed=1, **arguments):
    """A workflow whose network is, from its start by least squares, a normal with a linear mean."""
    simulator = bf.make_simulator([*priors, observe], is_batched=True)
    made = bf.LikelihoodWorkflow(
        simulator,
        parameters="mu",
        observables="x",
        iid="elements",
        network=bf.networks.AutoregressiveMixture(1, trunk_width=0, head_width=8, head_blocks=0),
        initial_learning_rate=1e-7,
        seed=seed,
        progress=False,
        **arguments,
    )
    made.fit_offline(simulator.sample(20_000, seed=seed), epochs=1, batch_size=10_000)
    return made


def location(sd, seed=1):
    """x ~ N(mu, NOISE^2), mu ~ N(0, sd^2)."""
    return trained(
        [{"mu": Normal(0.0, sd).expand((1,))}],
        lambda mu, rng: {"x": mu + NOISE * rng.normal(size=mu.shape)},
        seed,
    )


@pytest.fixture(scope="module")
def one():
    return location(1.0)


@pytest.fixture(scope="module")
def shifted():
    """x ~ N(mu + c_1 - c_2, NOISE^2), with conditions c of width 2 between -2 and 2."""
    return trained(
        [
            {"mu": Normal(0.0, 1.0).expand((1,))},
            lambda batch_size, rng: {"c": rng.uniform(-2, 2, (batch_size, 2))},
        ],
        lambda mu, c, rng: {"x": mu + c[:, :1] - c[:, 1:] + NOISE * rng.normal(size=mu.shape)},
        conditions="c",
    )


def test_without_elements_the_likelihood_is_one(one):
    """0 nats and no slope, so that chains draw from the prior, beside a data set of two elements."""
    likelihood = ElementLikelihood(one.approximator, {"x": [np.zeros(0), np.ones(2)]})
    mu = {"mu": torch.tensor([[0.3], [-2.0], [0.3]], dtype=torch.float64)}
    rows = torch.tensor([0, 0, 1])
    value, slope = likelihood.of_a_part(mu, rows, (torch.zeros_like(rows), likelihood.sizes[rows]))
    assert value[:2].tolist() == [0.0, 0.0]
    assert slope[:2].flatten().tolist() == [0.0, 0.0]
    assert value[2].item() == pytest.approx(2 * stats.norm.logpdf(1.0, 0.3, NOISE), abs=0.05)
    one = torch.tensor([0])
    alone, _ = likelihood.of_a_part({"mu": mu["mu"][:1]}, one, (one, likelihood.sizes[:1]))
    assert alone.item() == 0.0


def test_elements_come_in_stages_whose_sum_is_the_likelihood(shifted):
    """Data sets of 1 000, 70 and 15 elements with conditions of their own: the base of a stage is the sum of
    all before it, base and likelihood of the last one are prior and likelihood of all elements, and the
    gradients are theirs."""
    rng = np.random.default_rng(2)
    data = {
        "x": [rng.normal(size=n) for n in (1000, 70, 15)],
        "c": [rng.uniform(-2, 2, (n, 2)) for n in (1000, 70, 15)],
    }
    likelihood = ElementLikelihood(shifted.approximator, data)
    prior = Prior({"mu": Normal(0.0, 1.0).expand((1,))}, {"mu": 1})
    target = PosteriorTarget(prior, likelihood)
    rows, z = torch.arange(3), torch.tensor([[[0.2], [-1.0]]] * 3, dtype=torch.float64)
    assert target.num_stages(rows).tolist() == [3, 2, 1]
    found = [target(z, rows, torch.minimum(stage, target.num_stages(rows) - 1)) for stage in torch.arange(3)]
    given = z.flatten(0, 1).requires_grad_()
    exact = likelihood({"mu": given}, rows.repeat_interleave(2))
    density = exact + Normal(0.0, 1.0).log_prob(given)[:, 0]
    (slope,) = torch.autograd.grad(density.sum(), given)
    total = found[-1].base + found[-1].likelihood
    np.testing.assert_allclose(total.flatten(), density.detach(), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(
        (found[-1].base_slope + found[-1].likelihood_slope).flatten(), slope.flatten(), rtol=1e-4, atol=1e-2
    )
    before = found[0].base + found[0].likelihood
    np.testing.assert_allclose(found[1].base[:2], before[:2], rtol=1e-6, atol=1e-4)
    fast = target(z, rows, target.num_stages(rows) - 1, with_slopes=False)
    np.testing.assert_allclose(fast.base + fast.likelihood, total, rtol=1e-6, atol=1e-4)


def test_members_trained_one_by_one_keep_their_moments(one):
    """Members of other priors, and so of other moments: logarithms of mean densities, summed."""
    members = {"one": one.approximator, "other": location(3.0, seed=2).approximator}
    joined = bf.LikelihoodWorkflow(network=EnsembleApproximator(members))
    x = np.array([0.3, 1.1, 0.9])
    rows = {"mu": np.full((3, 1), 0.5), "x": x[:, None]}
    densities = [member.log_prob(rows) for member in members.values()]
    exact = (np.logaddexp(*densities) - np.log(2)).sum()
    found = joined.log_likelihood({"mu": [[0.5]], "x": x[None]})
    assert found[0] == pytest.approx(exact, abs=1e-5)
    assert found[0] == pytest.approx(stats.norm.logpdf(x, 0.5, NOISE).sum(), abs=0.05)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_conditions_of_all_elements_may_be_as_wide_as_elements_are_many(shifted, number):
    """One condition (1, 2) for all elements is the same as one for each, (1, N, 2), also for N = 2."""
    data = {"mu": [[0.5]], "x": np.ones((1, number))}
    shared, each = np.array([[1.0, 0.5]]), np.tile([[1.0, 0.5]], (1, number, 1))
    found = [shifted.log_likelihood({**data, "c": c})[0] for c in (shared, each)]
    assert found[0] == found[1]
    assert found[0] == pytest.approx(number * stats.norm.logpdf(1.0, 1.0, NOISE), abs=0.05)


def test_conditions_beyond_the_simulated_ones_are_no_parameters_beyond(shifted):
    """Parameters within reach are within it for any condition, and others are not."""
    data = {"x": np.zeros((1, 2)), "c": np.full((1, 2, 2), 3.0)}
    likelihood = ElementLikelihood(shifted.approximator, data)
    mu = torch.tensor([[0.0], [0.5], [30.0]], dtype=torch.float64)
    assert likelihood.outside_reach({"mu": mu}).tolist() == [False, False, True]


@pytest.mark.parametrize("conditions", [None, np.zeros(3), [[1.0, 2.0]]])
def test_data_without_names_are_refused(one, conditions):
    """The error says to pass a dict."""
    with pytest.raises(DataError, match="as a dict of names"):
        one.sample(num_samples=5, conditions=conditions)


def test_no_data_sets_at_once_are_refused(one):
    """batch_size=0 is told as for draws."""
    with pytest.raises(ConfigurationError, match="batch_size as a positive integer"):
        one.log_likelihood({"mu": [[0.5]], "x": np.ones((1, 3))}, batch_size=0)


def test_the_function_of_parameters_takes_arrays(one):
    """NumPy and torch parameters have the same log likelihood."""
    function = one.log_likelihood_fn({"x": np.ones((1, 3))})
    assert function(np.zeros((2, 1))).tolist() == function(torch.zeros(2, 1)).tolist()
