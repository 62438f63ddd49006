"""Importance-resampled draws against an exact posterior, from approximators that are wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from linear_gaussian import NOISE, SD, SIMULATOR, exact_mean, log_likelihood, log_prior, workflow
from scipy import stats
from torch.distributions import Dirichlet, Exponential, Normal

from sbi_models import BasicWorkflow
from sbi_models.approximators import Certificate
from sbi_models.errors import ConfigurationError, DataError, TrustWarning
from sbi_models.networks import AutoregressiveMixture, ConsistencyModel
from sbi_models.simulators.benchmarks import GaussianLinear
from sbi_models.workflows.importance_resampling import ResamplingReport, _doubts
from sbi_models.workflows.importance_weights import log_joint_of, torch_log_prior, weighted_draws

X = np.array([[0.3, -0.8], [1.2, 0.4]])


@pytest.fixture(scope="module")
def wrong():
    """A posterior that has seen sixty simulations for five epochs."""
    made = workflow(inference_network=AutoregressiveMixture(3, trunk_width=0, head_width=8))
    made.fit_offline(SIMULATOR.sample(60, seed=1), epochs=5, batch_size=30)
    return made


def test_corrected_draws_are_those_of_the_exact_posterior(wrong):
    """Means within 4 standard errors of as many draws as the report says, sds within 8 %, where the
    approximator's own are further off."""
    draws, reports = wrong.importance_sample(
        num_samples=4_000, conditions={"x": X}, log_likelihood=log_likelihood, log_prior=log_prior, seed=3
    )
    own = wrong.sample(num_samples=4_000, conditions={"x": X}, seed=3)["theta"]
    assert draws["theta"].shape == (2, 4_000, 2)
    assert (
        max(np.abs(own.mean(axis=1) - exact_mean(X)).max() / SD, np.abs(own.std(axis=1) / SD - 1).max()) > 0.1
    )
    for i, report in enumerate(reports):
        assert report.is_reliable
        assert report.num_proposals == 40_000
        assert 400 < report.effective_draws < 40_000
        error = SD / np.sqrt(min(4_000, report.effective_draws))
        assert np.abs(draws["theta"][i].mean(axis=0) - exact_mean(X[i])).max() < 4 * error
        assert np.abs(draws["theta"][i].std(axis=0) / SD - 1).max() < 0.08


def test_the_evidence_is_exact(wrong):
    """log p(x) of Normal(0, 1 + NOISE^2) in each of two dimensions."""
    _, reports = wrong.importance_sample(
        num_samples=2_000, conditions={"x": X}, log_likelihood=log_likelihood, log_prior=log_prior, seed=4
    )
    variance = 1 + NOISE**2
    exact = -0.5 * (X**2).sum(axis=1) / variance - np.log(2 * np.pi * variance)
    np.testing.assert_allclose([report.log_evidence for report in reports], exact, atol=0.05)


def test_the_same_seed_gives_the_same_draws(wrong):
    """And another one others."""
    ask = {
        "num_samples": 50,
        "conditions": {"x": X},
        "log_likelihood": log_likelihood,
        "log_prior": log_prior,
        "num_proposals": 20_000,
    }
    first, again, other = (wrong.importance_sample(**ask, seed=seed)[0]["theta"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_benchmark_brings_its_likelihood():
    """No function is needed for a simulator whose object knows log_joint."""
    benchmark = GaussianLinear()
    made = BasicWorkflow(
        benchmark.simulator,
        inference_variables="theta",
        inference_conditions="x",
        inference_network=AutoregressiveMixture(1, trunk_width=0, head_width=8),
        standardize="all",
        progress=False,
        seed=0,
    )
    made.fit_offline(benchmark.simulator.sample(500, seed=1), epochs=1, batch_size=100)
    x = np.full((1, 10), 0.2)
    draws, (report,) = made.importance_sample(num_samples=2_000, conditions={"x": x}, seed=2)
    assert report.is_reliable
    np.testing.assert_allclose(
        draws["theta"][0].mean(axis=0), 0.1, atol=5 * np.sqrt(0.05 / min(2_000, report.effective_draws))
    )


def test_what_an_approximator_misses_is_said(wrong):
    """An observation far from all simulations: few draws of the approximator are of any use, and a warning
    says so."""
    with pytest.warns(TrustWarning, match="worth"):
        _, (report,) = wrong.importance_sample(
            num_samples=100,
            conditions={"x": np.full((1, 2), 30.0)},
            log_likelihood=log_likelihood,
            log_prior=log_prior,
            seed=1,
        )
    assert not report.is_reliable
    assert report.as_dict()["effective_draws"] < 100


def report(number, effective, raw, largest, pareto_k):
    """Report on so many proposals, without warnings."""
    return ResamplingReport(
        num_proposals=number,
        effective_draws=effective,
        raw_effective_draws=raw,
        largest_weight=largest,
        pareto_k=pareto_k,
        log_evidence=0.0,
    )


def test_a_mode_that_smoothing_hides_is_said():
    """One draw of 4000 with all of the weight, whose smoothed weights look fine: certificate and correction
    both say so, with both numbers; weights of a tail that smoothing is for are no reason."""
    (doubt,) = _doubts(report(4000, 3353.0, 1.0, 0.999, 0.69))
    assert (
        "99.9% of the weight: they are worth 1 draws before the weights are smoothed, and 3353 after" in doubt
    )
    assert not _doubts(report(4000, 3353.0, 2900.0, 0.03, 0.6))
    weighted = {"effective_sample_size": 0.84, "pareto_k": 0.69}
    hidden = Certificate(novelty=0.5, raw_effective_sample_size=1 / 4000, largest_weight=0.999, **weighted)
    assert hidden.verdict == "failed"
    assert "One of the draws has 99.9% of the weight: 0.0% of them are of use before" in hidden.warnings[0]
    assert Certificate(novelty=0.5, raw_effective_sample_size=0.7, largest_weight=0.03, **weighted).trusted


def test_without_likelihood_or_density_there_is_an_error(wrong):
    """Before anything is drawn; and too few proposals are one, too."""
    with pytest.raises(ConfigurationError, match="Expected a likelihood"):
        wrong.importance_sample(num_samples=10, conditions={"x": X}, seed=1)
    with pytest.raises(ConfigurationError, match="Expected num_proposals of at least num_samples"):
        wrong.importance_sample(num_samples=10, conditions={"x": X}, num_proposals=5, seed=1)
    no_density = workflow(inference_network=ConsistencyModel(widths=(8, 8)))
    no_density.fit_offline(SIMULATOR.sample(64, seed=1), epochs=1)
    with pytest.raises(ConfigurationError, match="density"):
        no_density.importance_sample(
            num_samples=10, conditions={"x": X}, log_likelihood=log_likelihood, log_prior=log_prior, seed=1
        )


def fake(**changed):
    """What importance weights need of an approximator: three draws of theta, and their log density."""
    settings = {
        "has_draws": True,
        "members": {},
        "inference_names": ("theta",),
        "condition_names": ("x",),
        "shapes": {"theta": (2,)},
        "sample": lambda **given: {"theta": np.arange(6.0).reshape(1, 3, 2)},
        "log_prob": lambda variables, batch_size: np.array([0.5, -1.0, 2.0]),
    }
    return SimpleNamespace(**settings | changed)


def test_a_likelihood_of_the_simulator_is_taken_if_it_fits_and_there_is_a_density():
    """It is a function of the variables that the approximator has; without a density of all members it is of
    no use."""

    def joint(theta, x):
        return theta

    def of_others(theta, z):
        return z

    def found(function, approximator):
        return log_joint_of(approximator, SimpleNamespace(log_joint=function), {}, None, None)

    dense, flat = SimpleNamespace(has_density=True), SimpleNamespace(has_density=False)
    assert found(joint, fake(members={"a": dense})) is joint
    assert found(joint, fake(members={"a": dense, "b": flat})) is None
    assert found(joint, fake(has_draws=False)) is None
    assert found(of_others, fake(members={"a": dense})) is None


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_one_log_density_that_is_no_number_is_an_error(wrong):
    """NaN or inf for one draw of three is refused; -inf is a weight of zero."""
    observed = {"x": np.zeros((1, 2))}

    def weights(values):
        return weighted_draws(fake(), observed, lambda theta: values, num_samples=3, batch_size=None, seed=0)[
            1
        ]

    known = np.array([1.0, 2.0, -np.inf])
    np.testing.assert_allclose(weights(known), [[0.5, 3.0, -np.inf]])
    with pytest.raises(DataError, match="without NaN or inf"):
        weights(np.array([1.0, wrong, 2.0]))


def test_the_log_density_of_torch_priors_is_a_sum_over_components_of_each_row():
    """Against SciPy: a vector of normal numbers, one of positive ones, and a Dirichlet; -inf outside."""
    rng = np.random.default_rng(5)
    rows = {
        "a": rng.normal(size=(6, 3)),
        "b": rng.exponential(size=(6, 1)),
        "c": rng.dirichlet([1, 2], size=6),
    }
    rows["b"][2] = -1.0
    log_prior = torch_log_prior(
        {
            "a": Normal(1.0, 2.0).expand((3,)),
            "b": Exponential(0.5),
            "c": Dirichlet(torch.tensor([1.0, 2.0], dtype=torch.float64)),
        }
    )
    exact = stats.norm.logpdf(rows["a"], 1.0, 2.0).sum(axis=1)
    exact += stats.expon.logpdf(rows["b"][:, 0], scale=2.0) + stats.dirichlet.logpdf(rows["c"].T, [1, 2])
    found = log_prior(**rows)
    assert np.isneginf(found[2])
    np.testing.assert_allclose(np.delete(found, 2), np.delete(exact, 2), rtol=1e-6)


def test_a_hundred_effective_draws_are_enough():
    """By equal weights of 100 proposals; 99 are not."""
    assert not _doubts(report(100, 100.0, 100.0, 0.01, 0.0))
    assert _doubts(report(99, 99.0, 99.0, 0.01, 0.0))
