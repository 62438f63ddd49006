"""Learned likelihoods in corners: data sets without elements, members and conditions of several kinds,
against exact normal densities, and calls that are refused in words."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Normal, Uniform

import sbi_models as bf
from sbi_models.approximators import EnsembleApproximator
from sbi_models.approximators.element_likelihood import ElementLikelihood
from sbi_models.errors import ConfigurationError, DataError, TrustWarning
from sbi_models.workflows.likelihood.prior import Prior
from sbi_models.workflows.likelihood.target import PosteriorTarget

NOISE = 0.8


def trained(priors, observe, seed=1, iid="elements", **arguments):
    """A workflow whose network is, from its start by least squares, a normal with a linear mean."""
    simulator = bf.make_simulator([*priors, observe], is_batched=True)
    made = bf.LikelihoodWorkflow(
        simulator,
        parameters="mu",
        observables="x",
        iid=iid,
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


# ---- ensembles of members with different supports ---------------------------


def between(low, high, seed):
    """x ~ N(mu, NOISE^2), mu between two bounds."""
    return trained(
        [{"mu": Uniform(low, high).expand((1,))}],
        lambda mu, rng: {"x": mu + NOISE * rng.normal(size=mu.shape)},
        seed,
    )


@pytest.fixture(scope="module")
def overlapping():
    """Members that were simulated from 0 to 2, and from 1 to 4."""
    return [between(0.0, 2.0, 1).approximator, between(1.0, 4.0, 2).approximator]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_members_count_where_they_have_been_simulated(overlapping, order):
    """From 0 to 1 the density is that of one member, from 1 to 2 the mean of both, from 2 to 4 that of the
    other, and beyond there is none, whichever is the first; all integrate to 1 over x."""
    members = {str(k): overlapping[k] for k in order}
    joined = bf.LikelihoodWorkflow(network=EnsembleApproximator(members))
    x = np.linspace(-6, 10, 801)
    for mu, known in ((-0.5, ()), (0.5, (0,)), (1.5, (0, 1)), (3.0, (1,)), (4.5, ())):
        rows = {"mu": np.full((801, 1), mu), "x": x[:, None]}
        found = joined.log_likelihood({"mu": rows["mu"], "x": x[:, None, None]})
        if not known:
            assert np.isneginf(found).all()
            continue
        exact = np.mean([np.exp(overlapping[k].log_prob(rows)) for k in known], axis=0)
        np.testing.assert_allclose(np.exp(found), exact, atol=1e-5)
        assert np.trapezoid(np.exp(found), x) == pytest.approx(1.0, abs=1e-3)
    likelihood = ElementLikelihood(joined.approximator, {"x": np.ones((1, 2))})
    mu = torch.tensor([[0.5], [1.5], [3.0], [4.5]], dtype=torch.float64)
    assert likelihood.outside_reach({"mu": mu}).tolist() == [False, False, False, True]
    rows = torch.zeros(4, dtype=torch.long)
    _, slope = likelihood.of_a_part({"mu": mu}, rows, (rows, rows + 2))
    exact = 2 * (1.0 - mu[:3, 0]) / NOISE**2
    torch.testing.assert_close(slope[:3, 0], exact, rtol=0.1, atol=0.1)
    assert slope[3].item() == 0.0


def test_the_reach_of_members_is_what_all_have_reached(one):
    """Without bounds, a member of a narrow prior extrapolates where one of a wide prior does not."""
    wide = location(5.0, seed=2)
    mu = {"mu": torch.tensor([[0.0], [9.0], [40.0]], dtype=torch.float64)}
    for members in ((one, wide), (wide, one)):
        joined = EnsembleApproximator({str(k): one.approximator for k, one in enumerate(members)})
        likelihood = ElementLikelihood(joined, {"x": np.ones((1, 2))})
        assert likelihood.outside_reach(mu).tolist() == [False, True, True]
        with pytest.raises(ConfigurationError, match="Expected a prior with a density"):
            bf.LikelihoodWorkflow(network=joined).sample(num_samples=2, conditions={"x": np.ones((1, 2))})


def test_members_of_other_kinds_of_data_are_refused(one):
    """Elements and whole vectors have no common likelihood."""
    whole = trained(
        [{"mu": Normal(0.0, 1.0).expand((1,))}],
        lambda mu, rng: {"x": mu + NOISE * rng.normal(size=mu.shape)},
        iid=None,
    )
    joined = EnsembleApproximator({"one": one.approximator, "whole": whole.approximator})
    with pytest.raises(ConfigurationError, match="members of one iid"):
        bf.LikelihoodWorkflow(network=joined)


# ---- what is wrong with the input --------------------------------------------


def test_parameters_outside_of_the_support_have_likelihood_zero(overlapping):
    """Minus infinity among others, infinity included, and no error; NaN is one."""
    workflow = bf.LikelihoodWorkflow(network=overlapping[0])
    x = np.ones((4, 3))
    found = workflow.log_likelihood({"mu": [[-0.1], [1.0], [np.inf], [2.1]], "x": x})
    assert np.isneginf(found).tolist() == [True, False, True, True]
    with pytest.raises(DataError, match="parameters 'mu' that are numbers, got NaN at 1 places"):
        workflow.log_likelihood({"mu": [[np.nan], [1.0]], "x": x[:2]})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_observables_that_are_no_numbers_are_refused(one, value):
    """In a data set, in the condition of a posterior, and in a training."""
    x = np.array([[0.0, value, 1.0]])
    for call in (
        lambda: one.log_likelihood({"mu": [[0.0]], "x": x}),
        lambda: one.sample(num_samples=5, conditions={"x": x}),
        lambda: one.fit_offline({"mu": np.zeros((3, 1)), "x": x.T}, epochs=1),
    ):
        with pytest.raises(DataError, match="'x'"):
            call()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (lambda mu: -(mu**2), "Expected prior as a torch distribution"),
        ({"mu": lambda mu: -(mu**2)}, "Expected prior as torch distributions of parameters"),
        ({"nu": Normal(0.0, 1.0)}, "Did you mean 'mu'"),
        (Normal(torch.zeros(3), 1.0), "Expected a prior of 'mu' with 1 components"),
        (Normal(1e6, 1.0).expand((1,)), "Expected a prior that overlaps"),
        (Bernoulli(torch.tensor([0.5])), "Expected a continuous prior"),
    ],
)
def test_priors_that_are_none_are_refused(one, prior, message):
    """Functions, of which no draws are known, other parameters and widths, and ones beyond the reach."""
    with pytest.raises(ConfigurationError, match=message):
        one.sample(num_samples=5, conditions={"x": np.ones((1, 3))}, prior=prior)


def test_a_prior_beyond_the_reach_is_refused_with_conditions(shifted):
    """Also where elements have conditions, whatever these are."""
    data = {"x": np.ones((1, 3)), "c": np.zeros((1, 3, 2))}
    with pytest.raises(ConfigurationError, match="Expected a prior that overlaps"):
        shifted.sample(num_samples=5, conditions=data, prior=Normal(1e6, 1.0).expand((1,)))


def test_conditions_out_of_the_simulated_range_are_told(shifted):
    """Two of three elements in one data set, none in the other: a warning, and its share in the report."""
    c = np.zeros((2, 3, 2))
    c[1, :2, 0] = 7.0
    with pytest.warns(TrustWarning, match="conditions outside of the range that was simulated"):
        shifted.sample(num_samples=100, conditions={"x": np.ones((2, 3)), "c": c}, seed=1)
    assert [report.conditions_outside for report in shifted.reports] == [0.0, pytest.approx(2 / 3)]
    assert shifted.reports[0].is_reliable
