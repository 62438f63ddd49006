"""Torch distributions as priors: drawn from the seeded stream, in float64."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as d

from sbi_models.errors import ConfigurationError
from sbi_models.simulators import make_simulator
from sbi_models.simulators.priors import TorchPrior

PRIORS = {
    "uniform": (d.Uniform(-1.0, 2.0), stats.uniform(-1, 3)),
    "normal": (d.Normal(1.0, 2.0), stats.norm(1, 2)),
    "gamma": (d.Gamma(2.0, 3.0), stats.gamma(2, scale=1 / 3)),
    "beta": (d.Beta(2.0, 3.0), stats.beta(2, 3)),
    "log normal": (d.LogNormal(0.0, 0.5), stats.lognorm(0.5)),
    "student": (d.StudentT(4.0), stats.t(4)),
    "weibull": (d.Weibull(1.0, 2.0), stats.weibull_min(2)),
    "half cauchy": (d.HalfCauchy(1.0), stats.halfcauchy()),
    "mapped": (
        d.TransformedDistribution(d.Uniform(torch.tensor(0.0), 1.0), d.AffineTransform(2.0, 3.0)),
        stats.uniform(2, 3),
    ),
}


@pytest.mark.parametrize("is_batched", [False, True])
@pytest.mark.parametrize(("prior", "exact"), PRIORS.values(), ids=PRIORS)
def test_draws_have_the_distribution_in_float64(prior, exact, is_batched):
    """1000 draws pass a Kolmogorov-Smirnov test against SciPy at 1e-4, and are finer than float32 although
    the parameters are not."""
    theta = make_simulator({"theta": prior}, is_batched=is_batched).sample(1000, seed=1)["theta"]
    assert theta.shape == (1000, 1)
    assert theta.dtype == np.float64
    assert stats.kstest(theta[:, 0], exact.cdf).pvalue > 1e-4
    assert np.mean(theta == theta.astype(np.float32)) < 0.01


@pytest.mark.nightly_cases("False")
@pytest.mark.parametrize("is_batched", [False, True])
def test_vectors_counts_and_several_names(is_batched):
    """Shapes are batch and event shape; covariances and means are right; discrete draws are numbers; rows
    depend on seed and row."""
    covariance = torch.tensor([[2.0, 0.9], [0.9, 1.0]])
    priors = {
        "v": d.MultivariateNormal(torch.tensor([1.0, -1.0]), covariance),
        "p": d.Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
        "m": d.MixtureSameFamily(
            d.Categorical(torch.tensor([0.25, 0.75])), d.Normal(torch.tensor([-5.0, 5.0]), 1.0)
        ),
        "k": d.Poisson(torch.tensor([4.0, 1.0])),
        "i": d.Independent(d.Uniform(torch.zeros(2, 3), 1.0), 2),
    }
    simulator = make_simulator([priors, lambda v: {"x": 2 * v}], is_batched=is_batched, block_size=50)
    drawn = simulator.sample(2000, seed=2)
    assert {name: value.shape[1:] for name, value in drawn.items()} == {
        "v": (2,),
        "p": (3,),
        "m": (1,),
        "k": (2,),
        "i": (2, 3),
        "x": (2,),
    }
    assert all(value.dtype == np.float64 for value in drawn.values())
    np.testing.assert_allclose(np.cov(drawn["v"].T), covariance, atol=0.25)
    np.testing.assert_allclose(drawn["v"].mean(0), [1, -1], atol=0.16)
    np.testing.assert_allclose(drawn["p"].mean(0), [1 / 6, 2 / 6, 3 / 6], atol=0.02)
    np.testing.assert_allclose(drawn["p"].sum(1), 1, atol=1e-12)
    assert np.mean(drawn["m"] > 0) == pytest.approx(0.75, abs=0.05)
    np.testing.assert_allclose(drawn["k"].mean(0), [4, 1], atol=0.25)
    assert (drawn["k"] == drawn["k"].round()).all()
    np.testing.assert_array_equal(drawn["x"], 2 * drawn["v"])
    assert abs(np.corrcoef(drawn["v"][:, 0], drawn["i"][:, 0, 0])[0, 1]) < 5 / np.sqrt(2000)
    part = simulator.rows(60, 170, seed=2)
    for name, value in part.items():
        np.testing.assert_array_equal(value, drawn[name][60:170])
    assert not np.any(simulator.sample(5, seed=3)["v"] == drawn["v"][:5])


def test_torch_is_left_alone_and_does_not_matter():
    """Draws do not depend on torch's global state, nor change it, nor the distribution that was given."""
    given = d.Uniform(torch.zeros(2, requires_grad=True), 1.0)
    simulator = make_simulator({"theta": given})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = simulator.sample(4, seed=1)["theta"]
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(simulator.sample(4, seed=1)["theta"], first)
    assert given.low.dtype == torch.float32
    assert given.low.requires_grad


@pytest.mark.nightly
def test_workers_draw_the_same():
    """With two worker processes, to the bit."""
    simulator = make_simulator(
        [{"theta": d.Gamma(torch.ones(2), 1.0)}, lambda theta, rng: {"x": theta + rng.normal()}]
    )
    here, there = simulator.sample(20, seed=1), simulator.sample(20, seed=1, workers=2)
    for name, value in here.items():
        np.testing.assert_array_equal(there[name], value)


def test_priors_of_a_simulator_are_the_distributions_given():
    """`priors` holds them by name, whatever place they have among the functions; there are none where
    functions draw."""
    a, b = d.Uniform(0.0, 1.0), d.Normal(0.0, 1.0)
    simulator = make_simulator([{"a": a}, lambda a: {"x": a}, TorchPrior({"b": b})])
    assert simulator.priors == {"a": a, "b": b}
    assert simulator.priors["a"] is a
    assert make_simulator(lambda rng: {"a": rng.normal()}).priors == {}
    assert simulator.calls[0].name == "prior of a"


@pytest.mark.parametrize("prior", [{}, {"theta": 3.0}, {"theta": d.Uniform}, {3: d.Normal(0.0, 1.0)}])
def test_other_things_are_no_priors(prior):
    """A dict must hold distributions by name; refused when the simulator is made."""
    with pytest.raises(ConfigurationError, match="dict of names to torch distributions, got"):
        make_simulator([prior, lambda theta: {"x": theta}])


def test_a_distribution_without_a_name_is_refused():
    """The message says what to pass."""
    with pytest.raises(ConfigurationError, match=r'Expected a function.*\{"theta": distribution\}'):
        make_simulator([d.Normal(0.0, 1.0)])


def test_torch_has_its_settings_back():
    """A function that sets PyTorch's default type, or turns gradients off, does so for itself alone."""

    def likelihood(theta):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return {"x": theta}

    make_simulator([lambda rng: {"theta": rng.normal(size=2)}, likelihood]).sample(2, seed=1)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
