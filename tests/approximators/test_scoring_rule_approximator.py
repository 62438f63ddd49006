"""The approximator of scoring rules: what it refuses, its densities, files, and what others refuse for it."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from skewed_model import TEST, TWO, simulations, workflow

from sbi_models import BasicWorkflow, load, make_simulator
from sbi_models.adapters import Adapter
from sbi_models.approximators import ContinuousApproximator, ScoringRuleApproximator
from sbi_models.errors import ConfigurationError, NotFittedError
from sbi_models.networks import FlowMatching

POINT = {
    "theta": np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], size=64),
    "x": np.random.default_rng(1).normal(size=(64, 1)),
}


@pytest.mark.filterwarnings("ignore:.*it has whole numbers only:sbi_models.errors.TrustWarning")
@pytest.mark.parametrize(
    ("rule", "adapter", "message"),
    [
        (
            "quantile",
            Adapter().scale("theta", by=[1.0, 1.0, -1.0]),
            r"adapter \(scale, .*increasing in each component.*'quantile'",
        ),
        ("quantile", Adapter().constrain("theta", to="simplex"), "increasing in each component"),
        (
            "median",
            Adapter().constrain("theta", to="simplex"),
            "monotone in each component.*leave the rule out",
        ),
        ("mean", Adapter().one_hot("theta", num_classes=3), "differentiable for the scoring rule 'mean'"),
    ],
)
def test_adapters_that_would_spoil_an_estimate_are_refused_before_training(rule, adapter, message):
    """Reversed quantiles, quantiles and medians of mixed components, and means of classes are refused, again
    and again, before any step."""
    data = POINT | (
        {"theta": np.eye(3, dtype=int)[:, :1].repeat(22, axis=0)[:64]}
        if "one_hot" in str(adapter.to_json())
        else {}
    )
    made = workflow([rule, "mv_normal"], adapter, inference_variables="theta", inference_conditions="x")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=message):
            made.fit_offline(data, epochs=1)
    assert made.history is None
    assert not made.approximator.is_built


# --- densities


def points_and_density(adapter=None, **arguments):
    """A small trained network with a point rule and a mixture; the training is too short to be good."""
    made = workflow(["mean", "quantile", "mixture"], adapter or Adapter().log("sigma"), **arguments)
    made.fit_offline(simulations(512, 0), epochs=3, batch_size=64)
    return made


@pytest.fixture(scope="module")
def made():
    return points_and_density()


def test_raw_densities_integrate_to_one(made):
    """Through the log adapter, exp(log_prob) of sigma and mu sums to 1 within 1e-3 on a grid of raw space
    that holds all of it."""
    log_sigma, mu = np.linspace(-9, 9, 361), np.linspace(-40, 60, 401)
    grid = np.stack(np.meshgrid(log_sigma, mu, indexing="ij"), axis=-1).reshape(-1, 2)
    sigma = np.exp(grid[:, :1])
    density = np.exp(made.log_prob({"sigma": sigma, "mu": grid[:, 1:], "x": np.full((len(grid), 2), 0.3)}))
    cell = sigma[:, 0] * (log_sigma[1] - log_sigma[0]) * (mu[1] - mu[0])
    assert np.sum(density * cell) == pytest.approx(1.0, abs=1e-3)


def test_a_saved_approximator_estimates_the_same(made, tmp_path):
    """After save and load, estimates, draws, densities and losses are equal to the bit."""
    data = simulations(20, 5)
    loaded = load(made.approximator.save(tmp_path / "model.safetensors"))
    assert type(loaded) is ScoringRuleApproximator
    before, after = made.approximator.estimate(conditions=data), loaded.estimate(conditions=data)
    for rule, values in before.items():
        for name, value in values.items():
            np.testing.assert_array_equal(after[rule][name], value)
    draws = [
        model.sample(num_samples=6, conditions=data, seed=1)["sigma"] for model in (made.approximator, loaded)
    ]
    np.testing.assert_array_equal(*draws)
    np.testing.assert_array_equal(loaded.log_prob(data), made.approximator.log_prob(data))
    with torch.no_grad():
        losses = [model.loss(model.prepare(data)) for model in (made.approximator, loaded)]
    assert torch.equal(*losses)


def test_estimates_do_not_depend_on_the_chunks(made):
    """Data sets one by one give what all of them give together; split gives each component; test batches are
    taken whole."""
    data = simulations(7, 6)
    whole = made.estimate(conditions=data)
    parts = made.estimate(conditions={"x": data["x"]}, batch_size=2)
    for rule, values in whole.items():
        for name, value in values.items():
            np.testing.assert_allclose(parts[rule][name], value, rtol=1e-5)
    split = made.estimate(conditions=data, split=True)
    assert set(split["quantile"]) == {"sigma_0", "mu_0"}
    np.testing.assert_array_equal(split["quantile"]["sigma_0"], whole["quantile"]["sigma"])


def test_estimates_of_densities_are_in_adapted_space(made):
    """Weights, means and covariances of the mixture, in log sigma and mu, give the density that log_prob has
    in raw space."""
    data = simulations(5, 7)
    parts = made.estimate(conditions=data)["mixture"]
    adapted = np.concatenate([np.log(data["sigma"]), data["mu"]], axis=1)
    for row in range(5):
        terms = zip(parts["weights"][row], parts["means"][row], parts["covariances"][row], strict=True)
        density = sum(
            weight * multivariate_normal(mean, covariance).pdf(adapted[row])
            for weight, mean, covariance in terms
        )
        exact = np.log(density) - np.log(data["sigma"][row, 0])
        assert made.log_prob(data)[row] == pytest.approx(exact, abs=1e-5)


# --- what is asked of the wrong kind


def test_the_network_chooses_the_approximator():
    """A network of scoring rules, by name too, gets the approximator with estimates, which takes no other;
    another one gets draws."""
    assert type(workflow("mean").approximator) is ScoringRuleApproximator
    assert (
        type(BasicWorkflow(**TWO, inference_network="scoring_rules").approximator) is ScoringRuleApproximator
    )
    assert type(BasicWorkflow(**TWO).approximator) is ContinuousApproximator
    with pytest.raises(ConfigurationError, match="Expected a ScoringRuleNetwork, got FlowMatching"):
        ScoringRuleApproximator(adapter=Adapter(), roles=TWO, inference_network=FlowMatching())


def test_draws_of_points_and_estimates_of_draws_are_refused():
    """Point estimators refuse draws and densities, approximators with draws refuse estimates, and an
    untrained one says that first."""
    points = workflow("mean")
    with pytest.raises(NotFittedError, match="has not been trained"):
        points.estimate(conditions=TEST)
    data = simulations(64, 0)
    points.fit_offline(data, epochs=1)
    with pytest.raises(ConfigurationError, match=r"point estimates mean has no draws: call estimate"):
        points.sample(num_samples=3, conditions=TEST)
    with pytest.raises(ConfigurationError, match=r"has no density.*'mv_normal'"):
        points.log_prob(data)
    with pytest.raises(ConfigurationError, match="CouplingFlow has draws, not estimates: call sample"):
        BasicWorkflow(**TWO).estimate(conditions=TEST)


def test_diagnostics_of_points_are_refused_before_anything_is_simulated():
    """Default and custom diagnostics of a point estimator say that there are no draws; draws that are passed
    are diagnosed."""
    calls = []

    def prior(rng):
        calls.append(1)
        return {"sigma": np.exp(rng.normal(size=1)), "mu": rng.normal(size=1), "x": rng.normal(size=2)}

    points = workflow("mean", simulator=make_simulator([prior]))
    data = simulations(64, 0)
    points.fit_offline(data, epochs=1)
    for ask in (
        lambda: points.compute_default_diagnostics(50),
        lambda: points.plot_default_diagnostics(data),
        lambda: points.compute_custom_diagnostics(50, {"a": lambda *a, **k: 1}),
    ):
        with pytest.raises(ConfigurationError, match=r"has no draws, only point estimates.*estimate\("):
            ask()
    assert calls == []
    samples = {name: np.random.default_rng(1).normal(size=(64, 10, 1)) for name in ("sigma", "mu")}
    assert points.compute_default_diagnostics(data, samples=samples).shape == (4, 2)


def test_diagnostics_of_a_density_are_the_usual_ones(made):
    """With a parametric rule, default diagnostics work as for any posterior."""
    assert made.compute_default_diagnostics(simulations(50, 3), num_samples=50).shape == (4, 2)
