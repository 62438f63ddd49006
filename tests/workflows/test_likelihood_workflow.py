"""Learned likelihoods: against exact densities and conjugate posteriors of linear Gaussian elements, whose
likelihood a mixture of one normal has from its start by least squares."""

import numpy as np
import pytest
import torch
from linear_elements import (
    DESIGN,
    NOISE,
    SIMULATOR,
    elements,
    exact_posterior,
    fitted,
    joined,
    linear,
    workflow,
)
from scipy import stats
from torch.distributions import Normal, Uniform

import sbi_models as bf
from sbi_models.approximators import LikelihoodApproximator
from sbi_models.errors import ConfigurationError, DataError, TrustWarning


@pytest.fixture(scope="module")
def trained():
    return fitted()


def test_log_likelihoods_are_exact_sums(trained):
    """Data sets of 1, 3 and 50 elements in one list: log densities of SciPy, to 1 %."""
    data = {"mu": np.full((3, 2), 0.3), "shift": np.full(3, 0.2), "x": elements([1, 3, 50])}
    mean = DESIGN @ [0.3, 0.3, 0.2]
    exact = [stats.norm.logpdf(x, mean, NOISE).sum() for x in data["x"]]
    np.testing.assert_allclose(trained.log_likelihood(data), exact, rtol=0.01)
    np.testing.assert_allclose(
        trained.log_likelihood(data), trained.log_likelihood(data, batch_size=1), rtol=1e-6
    )


def test_ten_thousand_elements_are_the_sum_of_their_densities(trained):
    """In chunks, and in float64: the sum of `log_prob` of single elements, to 1e-6."""
    x = np.stack(elements([10_000]))
    given = {"mu": np.full((10_000, 2), 0.3), "shift": np.full((10_000, 1), 0.2)}
    one = {name: value[:1] for name, value in given.items()}
    exact = trained.log_prob({**given, "x": x[0]}).sum()
    assert trained.log_likelihood({**one, "x": x})[0] == pytest.approx(exact, rel=1e-6)
    function = trained.log_likelihood_fn({"x": x})
    theta = torch.tensor([[0.3, 0.3, 0.2]], requires_grad=True)
    function(theta).sum().backward()
    slope = DESIGN.T @ (x[0] - DESIGN @ [0.3, 0.3, 0.2]).sum(axis=0) / NOISE**2
    np.testing.assert_allclose(theta.grad[0].numpy(), slope, rtol=0.05)


def test_gradients_are_those_of_finite_differences(trained):
    """At ten parameters, in chunks of one call or of several."""
    function = trained.log_likelihood_fn({"x": np.stack(elements([20]))})
    theta = torch.randn(
        10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()
    (slope,) = torch.autograd.grad(function(theta).sum(), theta)
    with torch.no_grad():
        for k in range(3):
            step = 1e-2 * torch.eye(3, dtype=torch.float64)[k]
            difference = (function(theta + step) - function(theta - step)) / 2e-2
            np.testing.assert_allclose(slope[:, k].numpy(), difference.numpy(), rtol=1e-2, atol=0.05)


@pytest.mark.nightly
def test_posteriors_for_any_prior_and_number_of_elements(trained):
    """Data sets of 1, 10 and 30 elements, prior of the simulations and another one: means within 0.12 exact
    sds, sds within 8 %, and no doubt."""
    # seconds: chains of three data sets, for two priors
    data = elements([1, 10, 30])
    for prior, mean, sd in (
        (None, (0.0, 0.0, 0.5), (1.0, 1.0, 0.5)),
        ({"shift": Normal(0.0, 0.2)}, (0.0, 0.0, 0.0), (1.0, 1.0, 0.2)),
    ):
        draws = joined(trained.sample(num_samples=2000, conditions={"x": data}, prior=prior, seed=2))
        assert all(report.is_reliable and report.method == "mcmc" for report in trained.reports)
        for drawn, x in zip(draws, data, strict=True):
            exact, covariance = exact_posterior(x, mean, sd)
            deviations = np.sqrt(np.diag(covariance))
            assert np.abs((drawn.mean(axis=0) - exact) / deviations).max() < 0.12
            assert np.abs(drawn.std(axis=0) / deviations - 1).max() < 0.08


def test_evidence_is_that_of_the_normal_model(trained):
    """Within 0.2 nats for 5 elements."""
    data = elements([5])
    trained.sample(num_samples=100, conditions={"x": data}, seed=2)
    design = np.tile(DESIGN, (5, 1))
    covariance = design @ np.diag([1.0, 1.0, 0.25]) @ design.T + NOISE**2 * np.eye(10)
    exact = stats.multivariate_normal.logpdf(data[0].reshape(-1), design @ [0.0, 0.0, 0.5], covariance)
    assert trained.reports[0].log_evidence == pytest.approx(exact, abs=0.2)


def test_maxima_are_those_of_the_posterior(trained):
    """Of a normal posterior the mean, in either space, within 0.05 exact sds."""
    data = elements([1, 40])
    for space in ("raw", "unbounded"):
        found = joined(trained.map({"x": data}, space=space, seed=1))
        for point, x in zip(found, data, strict=True):
            exact, covariance = exact_posterior(x)
            assert np.abs((point - exact) / np.sqrt(np.diag(covariance))).max() < 0.05


def test_maxima_depend_on_the_space():
    """Of a uniform parameter with normal elements: its raw density is the likelihood, that after the probit
    map the likelihood times a standard normal density; both maxima are those on a grid, within 0.01."""
    simulator = bf.make_simulator(
        [{"p": Uniform(0.0, 1.0).expand((1,))}, lambda p, rng: {"x": rng.normal(p, 0.3)}], is_batched=True
    )
    made = bf.LikelihoodWorkflow(
        simulator, parameters="p", observables="x", iid="elements", network=linear(),
        initial_learning_rate=1e-7, seed=1, progress=False, adapter=bf.Adapter().standardize("x"),
    )  # fmt: skip
    made.fit_offline(simulator.sample(50_000, seed=1), epochs=1, batch_size=25_000)
    x = np.array([[[0.9], [0.7], [0.95]]])
    grid = np.linspace(0, 1, 20_001)[1:-1]
    likelihood = stats.norm.logpdf(x[0], grid, 0.3).sum(axis=0)
    for space, density in (("raw", likelihood), ("unbounded", likelihood - stats.norm.ppf(grid) ** 2 / 2)):
        found = made.map({"x": x}, space=space, seed=1)["p"][0, 0]
        assert found == pytest.approx(grid[density.argmax()], abs=0.01)


@pytest.mark.nightly
def test_conditions_of_elements_shift_them():
    """x ~ N(mu + c, NOISE^2), with another c for each element, or one for all: exact posteriors."""

    def shifted(mu, c, rng):
        return {"x": mu + c + NOISE * rng.normal(size=mu.shape)}

    def stimulus(batch_size, rng):
        return {"c": rng.uniform(-2, 2, size=(batch_size, 1))}

    simulator = bf.make_simulator([{"mu": Normal(0.0, 1.0).expand((1,))}, stimulus, shifted], is_batched=True)
    made = bf.LikelihoodWorkflow(
        simulator, parameters="mu", observables="x", conditions="c", iid="elements", network=linear(),
        initial_learning_rate=1e-7, seed=1, progress=False,
    )  # fmt: skip
    made.fit_offline(simulator.sample(50_000, seed=1), epochs=1, batch_size=25_000)
    rng = np.random.default_rng(1)
    c = rng.uniform(-2, 2, size=(2, 12, 1))
    x = 0.5 + c + NOISE * rng.normal(size=c.shape)
    sd = 1 / np.sqrt(1 + 12 / NOISE**2)
    for given, rest in ((c, x - c), (np.ones((2, 1)), x - 1)):
        draws = made.sample(num_samples=2000, conditions={"x": x, "c": given}, seed=1)["mu"]
        exact = rest.sum(axis=1) / NOISE**2 * sd**2
        assert np.abs((draws.mean(axis=1) - exact) / sd).max() < 0.1
        assert np.abs(draws.std(axis=1) / sd - 1).max() < 0.08


def test_a_set_is_its_elements(trained):
    """Training on sets of different sizes is training on all elements: prepared rows are those of the same
    elements one by one."""
    parameters = SIMULATOR.sample(200, seed=1)
    rng = np.random.default_rng(1)
    sets = [rng.normal(size=(number, 2)) for number in rng.integers(1, 9, size=200)]
    flat = {
        name: np.repeat(parameters[name], [len(part) for part in sets], axis=0) for name in ("mu", "shift")
    }
    of_sets, of_elements = workflow(iid="sets"), workflow()
    of_sets.approximator.build({**parameters, "x": sets}, seed=1)
    of_elements.approximator.build({**flat, "x": np.concatenate(sets)}, seed=1)
    prepared = of_sets.approximator.prepare({**parameters, "x": sets})
    for role, rows in of_elements.approximator.prepare({**flat, "x": np.concatenate(sets)}).items():
        assert torch.equal(prepared[role], rows)
    of_sets.fit_offline({**parameters, "x": sets}, epochs=1)
    assert np.isfinite(of_sets.log_likelihood({**parameters, "x": sets})).all()


def test_categories_are_summed_once():
    """Elements that are equal are evaluated once: the same sum as of single elements, to 1e-5."""
    rng = np.random.default_rng(1)
    p = rng.uniform(size=(2000, 1))
    data = {"p": p, "x": rng.binomial(1, p).astype(float)}
    made = bf.LikelihoodWorkflow(
        None, parameters="p", observables="x", iid="elements", network=linear(), prior=Uniform(0.0, 1.0),
        seed=1, progress=False,
    )  # fmt: skip
    made.fit_offline(data, epochs=2)
    x = rng.binomial(1, 0.3, size=(1, 1000, 1)).astype(float)
    single = made.log_prob({"p": np.full((1000, 1), 0.4), "x": x[0]})
    assert made.log_likelihood({"p": [[0.4]], "x": x})[0] == pytest.approx(single.sum(), rel=1e-5)
    with pytest.raises(DataError, match="never simulated"):
        made.sample(num_samples=10, conditions={"x": x + 1})


@pytest.mark.nightly
def test_files_hold_a_likelihood(trained, tmp_path):
    """A loaded approximator, and a workflow with it, give the same to the bit, and know the data's kind."""
    path = trained.approximator.save(tmp_path / "likelihood")
    loaded = bf.load(path)
    assert isinstance(loaded, LikelihoodApproximator)
    assert loaded.iid == "elements"
    again = bf.LikelihoodWorkflow(SIMULATOR, network=loaded, seed=1)
    data = {"x": elements([2])}
    draws, others = (made.sample(num_samples=20, conditions=data, seed=3) for made in (trained, again))
    for name, value in draws.items():
        np.testing.assert_array_equal(others[name], value)


def test_an_ensemble_averages_densities(tmp_path):
    """Two members: log of the mean of the densities of each element, summed; kept by a file."""
    made = workflow(network=linear(2), ensemble_size=2, initial_learning_rate=1e-2)
    made.fit_offline(SIMULATOR.sample(500, seed=1), epochs=2)
    data = {"mu": np.zeros((1, 2)), "shift": np.zeros((1, 1)), "x": np.stack(elements([3]))}
    rows = {"mu": np.zeros((3, 2)), "shift": np.zeros((3, 1)), "x": data["x"][0]}
    parts = [member.log_prob(rows) for member in made.approximator.members.values()]
    exact = np.logaddexp(*parts).sum() - 3 * np.log(2)
    assert made.log_likelihood(data)[0] == pytest.approx(exact, rel=1e-5)
    again = bf.LikelihoodWorkflow(SIMULATOR, network=bf.load(made.approximator.save(tmp_path / "two")))
    assert again.log_likelihood(data)[0] == made.log_likelihood(data)[0]


def test_a_killed_training_goes_on(tmp_path):
    """Weights and draws of a training that is restored after its first epoch are those of the whole one."""
    data = SIMULATOR.sample(300, seed=1)

    def stop(epoch, losses):
        if epoch == 1:
            raise KeyboardInterrupt

    whole = workflow(network=linear(2), initial_learning_rate=1e-2)
    whole.fit_offline(data, epochs=3)
    arguments = {"network": linear(2), "initial_learning_rate": 1e-2, "checkpoint_filepath": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        workflow(**arguments).fit_offline(data, epochs=3, on_epoch_end=stop)
    rest = workflow(**arguments, restore=True)
    rest.fit_offline(data, epochs=3)
    for name, value in whole.approximator.inference_network.state_dict().items():
        assert torch.equal(rest.approximator.inference_network.state_dict()[name], value)


# ---- proposals --------------------------------------------------------------


def amortized(shift=0.0):
    """An exact amortized posterior of one element, or a wrong one."""
    made = bf.BasicWorkflow(
        SIMULATOR, inference_variables=["mu", "shift"], inference_conditions="x", inference_network=linear(),
        standardize="all", initial_learning_rate=1e-7, seed=1, progress=False,
    )  # fmt: skip
    made.fit_offline(SIMULATOR.sample(20_000, seed=3), epochs=1, batch_size=10_000)
    with torch.no_grad():
        made.approximator.inference_network.shift += shift
    return made


def test_an_amortized_posterior_proposes(trained):
    """Draws of an exact posterior have even weights and a small k; those of one far off do not, and chains
    take over, with the same exact means."""
    x = np.concatenate(elements([2]))
    for proposal, method in ((amortized(), "importance"), (amortized(shift=6.0), "mcmc")):
        draws = joined(trained.sample(num_samples=2000, conditions={"x": x}, proposal=proposal, seed=1))
        for drawn, one, report in zip(draws, x, trained.reports, strict=True):
            assert (report.method, report.is_reliable) == (method, True)
            assert (report.pareto_k <= 0.7) == (method == "importance")
            exact, covariance = exact_posterior(one[None])
            assert np.abs((drawn.mean(axis=0) - exact) / np.sqrt(np.diag(covariance))).max() < 0.12


def test_importance_without_chains_warns(trained):
    """method="importance" with a wrong proposal: a TrustWarning that names k."""
    with pytest.warns(TrustWarning, match="should not be trusted"):
        trained.sample(
            num_samples=50,
            conditions={"x": np.zeros((1, 2))},
            proposal=amortized(6.0),
            method="importance",
        )


# ---- what cannot be right ---------------------------------------------------


def test_parameters_outside_of_the_support_have_no_likelihood():
    """-inf, no error, in log_likelihood and in its function, and a finite value inside."""
    simulator = bf.make_simulator(
        [{"p": Uniform(torch.zeros(1), torch.ones(1))}, lambda p, rng: {"x": rng.normal(p)}], is_batched=True
    )
    made = bf.LikelihoodWorkflow(
        simulator, parameters="p", observables="x", iid="elements", network=linear(), seed=1, progress=False
    )
    made.fit_offline(simulator.sample(500, seed=1), epochs=1)
    x = np.zeros((3, 4, 1))
    values = made.log_likelihood({"p": [[-0.1], [0.5], [1.5]], "x": x})
    assert np.isneginf(values).tolist() == [True, False, True]
    function = made.log_likelihood_fn({"x": x[:1]})
    assert torch.isneginf(function(torch.tensor([[-0.1], [0.5], [torch.nan]]))).tolist() == [
        True,
        False,
        True,
    ]


def test_a_prior_out_of_reach_is_refused(trained):
    """No draw of it is among the simulated parameters."""
    with pytest.raises(ConfigurationError, match="overlaps"):
        trained.sample(num_samples=10, conditions={"x": np.zeros((1, 2))}, prior={"shift": Normal(50.0, 0.1)})


@pytest.mark.nightly
def test_a_posterior_at_the_edge_of_what_was_simulated_is_doubted(trained):
    """A wide prior, and data that pull beyond the simulations: a TrustWarning, and the share in the
    report."""
    with pytest.warns(TrustWarning, match="extrapolated"):
        trained.sample(
            num_samples=100, conditions={"x": np.full((1, 20, 2), [9.0, 0.0])},
            prior={"shift": Normal(0.0, 10.0)}, seed=1,
        )  # fmt: skip
    assert trained.reports[0].outside_reach > 0.5


def test_a_prior_that_is_cut_is_told():
    """Wider than the support of the simulations, and data at its edge: draws inside, and a TrustWarning."""
    simulator = bf.make_simulator(
        [{"p": Uniform(0.0, 1.0).expand((1,))}, lambda p, rng: {"x": rng.normal(p, 0.3)}], is_batched=True
    )
    made = bf.LikelihoodWorkflow(
        simulator, parameters="p", observables="x", network=linear(), seed=1, progress=False
    )
    made.fit_offline(simulator.sample(500, seed=1), epochs=1)
    with pytest.warns(TrustWarning, match="cut to that support"):
        draws = made.sample(num_samples=100, conditions={"x": [[0.9]]}, prior=Uniform(-2.0, 3.0), seed=1)["p"]
    assert draws.min() > 0
    assert draws.max() < 1
    made.sample(num_samples=100, conditions={"x": [[0.9]]}, seed=1)
    assert made.reports[0].cut == 0.0
