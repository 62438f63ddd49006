"""Posterior draws under another prior, against conjugate posteriors of both priors."""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Beta, Dirichlet, Distribution, Exponential, Gamma, Normal, Uniform

import sbi_models as bf
from sbi_models.errors import ConfigurationError, TrustWarning
from sbi_models.workflows.other_prior import PriorRatio, draw_under


def taken(posteriors: list[Distribution], old: Distribution, new: Distribution, number: int = 4_000):
    """Draws and reports under the new prior, from exact posteriors of data sets under the old one."""

    def draw(count: int, seed: int):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = np.stack([one.sample((count,)).double().numpy() for one in posteriors])
        return {"theta": drawn.reshape(len(posteriors), count, -1)}

    shape = tuple(old.batch_shape + old.event_shape) or (1,)
    return draw_under(PriorRatio({"theta": new}, {"theta": old}, {"theta": shape}), draw, number, seed=1)


def normal_posterior(prior: Normal, mean: float) -> Normal:
    """Posterior of the mean of five normal numbers of variance 1, of which the mean is given."""
    precision = prior.scale.double() ** -2 + 5
    return Normal((prior.loc.double() * prior.scale.double() ** -2 + 5 * mean) / precision, precision**-0.5)


def agrees(draws, exact: Distribution, effective: float) -> None:
    """Mean and sd of draws (S, d) are those of a distribution within 5 standard errors."""
    mean, sd = np.atleast_1d(exact.mean.numpy()), np.atleast_1d(exact.stddev.numpy())
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * sd / np.sqrt(effective))
    assert np.all(np.abs(draws.std(axis=0) / sd - 1) < 5 / np.sqrt(effective))


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 2.0), (1.0, 0.5), (0.0, 4.0)])
def test_normal_posteriors_follow_the_prior(mean, sd):
    """A narrower, a wider and the same normal prior give the conjugate posterior of each data set."""
    old, new = Normal(0.0, 2.0), Normal(mean, sd)
    posteriors = [normal_posterior(old, at) for at in (0.5, 2.0)]
    draws, reports = taken(posteriors, old, new)
    for row, at in enumerate((0.5, 2.0)):
        assert reports[row].is_reliable
        agrees(draws["theta"][row], normal_posterior(new, at), min(reports[row].effective_draws, 4_000))


def test_posteriors_of_rates_proportions_and_shares_follow_the_prior():
    """Gamma, Beta and Dirichlet priors with a likelihood that is conjugate to them."""
    for old, new, posterior, exact in (
        (Gamma(2.0, 1.0), Gamma(4.0, 3.0), Gamma(8.0, 5.0), Gamma(10.0, 7.0)),
        (Beta(1.0, 1.0), Beta(4.0, 2.0), Beta(6.0, 5.0), Beta(9.0, 6.0)),
        (
            Dirichlet(torch.ones(3)),
            Dirichlet(torch.tensor([2.0, 1.0, 3.0])),
            Dirichlet(torch.tensor([4.0, 5.0, 6.0])),
            Dirichlet(torch.tensor([5.0, 5.0, 8.0])),
        ),
    ):
        draws, (report,) = taken([posterior], old, new)
        assert report.is_reliable
        agrees(draws["theta"][0], exact, min(report.effective_draws, 4_000))


def test_a_discrete_parameter_has_the_odds_of_its_new_prior():
    """Prior odds of 1 : 3 in place of 1 : 1 divide the posterior odds by three."""
    draws, (report,) = taken([Bernoulli(0.6)], Bernoulli(0.5), Bernoulli(0.25))
    exact = 0.6 * 0.25 / (0.6 * 0.25 + 0.4 * 0.75)
    assert report.is_reliable
    assert abs(draws["theta"].mean() - exact) < 5 * np.sqrt(exact * (1 - exact) / 4_000)


def test_parameters_without_another_prior_keep_theirs():
    """The prior of one of two independent parameters changes, and the posterior of the other does not."""

    def draw(count: int, seed: int):
        rng = np.random.default_rng(seed)
        return {name: rng.normal(size=(1, count, 1)) for name in ("a", "b")}

    known = {"a": Normal(0.0, 2.0)}  # that of b is a function
    draws, _ = draw_under(
        PriorRatio({"a": Normal(2.0, 1.0)}, known, {"a": (1,), "b": (1,)}), draw, 4_000, seed=2
    )
    precision = 1 - 1 / 4 + 1
    assert draws["a"].mean() == pytest.approx(2 / precision, abs=0.05)
    assert draws["b"].mean() == pytest.approx(0.0, abs=0.08)


def test_a_prior_far_from_the_posterior_is_told():
    """Of the data sets in a call, those whose draws have too few or too heavy weights are named."""
    old = Normal(0.0, 2.0)
    with pytest.warns(TrustWarning, match=r"data set 1 of 2 .* independent draws only"):
        _, reports = taken([normal_posterior(old, at) for at in (2.5, -3.0)], old, Normal(3.0, 0.3))
    assert [report.is_reliable for report in reports] == [True, False]
    assert reports[1].effective_draws < 100 < reports[0].effective_draws


def test_a_prior_without_overlap_with_any_draw_is_told():
    """Weights of zero are no weights: the draws are as they were, and worth nothing."""
    with pytest.warns(TrustWarning, match="worth 0 independent"):
        taken([Uniform(0.0, 0.5)], Uniform(0.0, 1.0), Uniform(0.6, 0.9))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (Uniform(0.0, 1.0), Uniform(0.5, 2.0), "lies outside"),
        (Gamma(2.0, 1.0), Normal(1.0, 1.0), "lies outside"),
        (Normal(0.0, 1.0), Normal(0.0, 1.0).expand((2,)), "with 1 components"),
        (Bernoulli(0.5), Uniform(0.0, 1.0), "Expected a discrete prior"),
        (Exponential(1.0), Bernoulli(0.5), "Expected a continuous prior"),
        (Normal(0.0, 1.0), "normal", "torch distributions of parameters"),
    ],
)
def test_priors_that_do_not_fit_are_refused(old, new, message):
    """Beyond the support, of another size or kind, or none at all."""
    with pytest.raises(ConfigurationError, match=message):
        PriorRatio({"theta": new}, {"theta": old}, {"theta": (1,)})


def observe(theta, rng):
    return {"x": rng.normal(theta, 1.0)}


@pytest.fixture(scope="module")
def simulator():
    return bf.make_simulator([{"theta": Normal(0.0, 2.0).expand((1,))}, observe])


@pytest.mark.parametrize("kind", ["basic", "ensemble"])
def test_workflows_take_another_prior(simulator, kind):
    """Whatever a network has learned, its draws are weighted by the ratio: moments of 40 000 weighted draws
    of its own; the same seed gives the same draws; components come as variables on request."""
    network = bf.networks.AutoregressiveMixture(2, trunk_width=8, head_width=8)
    options = {"inference_variables": "theta", "inference_conditions": "x", "seed": 1, "progress": False}
    workflow = (
        bf.BasicWorkflow(simulator, inference_network=network, **options)
        if kind == "basic"
        else bf.EnsembleWorkflow(simulator, inference_networks=network, ensemble_size=2, **options)
    )
    workflow.fit_offline(simulator.sample(500, seed=1), epochs=2)
    x, new = {"x": np.array([[0.5], [1.0]])}, Normal(0.5, 1.0)
    draws = workflow.sample(num_samples=2_000, conditions=x, prior=new, seed=3)["theta"]
    again = workflow.sample(num_samples=2_000, conditions=x, prior={"theta": new}, seed=3, split=True)
    (component,) = again.values()
    np.testing.assert_array_equal(draws, component)
    own = torch.as_tensor(workflow.sample(num_samples=40_000, conditions=x, seed=4)["theta"][..., 0])
    weights = (new.log_prob(own) - Normal(0.0, 2.0).log_prob(own)).softmax(dim=1)
    mean = (weights * own).sum(dim=1).numpy()
    effective = min(report.effective_draws for report in workflow.prior_reports)
    assert len(workflow.prior_reports) == 2
    assert effective > 1_000
    assert np.all(np.abs(draws.mean(axis=(1, 2)) - mean) < 5 * own.std().item() / np.sqrt(1_000))


def test_what_a_workflow_cannot_weight_is_refused(simulator):
    """A prior that is a function has no density; members apart are not weighted."""

    def prior(rng):
        return {"theta": rng.normal(size=1)}

    options = {"inference_variables": "theta", "inference_conditions": "x", "seed": 1, "progress": False}
    x = {"x": np.zeros((1, 1))}
    workflow = bf.BasicWorkflow(bf.make_simulator([prior, observe]), **options)
    workflow.fit_offline(workflow.simulate(64, seed=1), epochs=1)
    with pytest.raises(ConfigurationError, match="prior of 'theta' has a density"):
        workflow.sample(num_samples=5, conditions=x, prior=Normal(0.0, 1.0))
    both = bf.EnsembleWorkflow(simulator, inference_networks="coupling_flow", ensemble_size=2, **options)
    both.fit_offline(simulator.sample(64, seed=1), epochs=1)
    with pytest.raises(ConfigurationError, match="merge_members=True with prior"):
        both.sample(num_samples=5, conditions=x, prior=Normal(0.0, 1.0), merge_members=False)
