"""Discrete inference variables of approximators: declared, found, refused, saved, and drawn as they are
simulated."""

import json

import numpy as np
import pytest
import torch

import sbi_models as bf
from sbi_models.adapters import Adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.errors import ConfigurationError, DataError, TrustWarning
from sbi_models.training.batched_members import BatchedMembers

ROLES = {"inference_variables": ["choice", "theta", "n"], "inference_conditions": ["x"]}
DECLARED = Adapter().as_categorical("choice").as_count("n")


def data(rows=400, seed=0):
    """choice in {1, 3, 7}, theta continuous with mean by choice, n Poisson, x a noisy view of all."""
    rng = np.random.default_rng(seed)
    choice = rng.choice([1.0, 3.0, 7.0], size=(rows, 1))
    theta = choice / 10 + rng.normal(size=(rows, 1))
    n = rng.poisson(3.0, size=(rows, 1)).astype(float)
    x = np.concatenate([choice + rng.normal(size=(rows, 1)), theta + n], axis=1)
    return {"choice": choice, "theta": theta, "n": n, "x": x}


def small(**arguments):
    return bf.networks.AutoregressiveMixture(
        **{"components": 3, "trunk_width": 16, "head_width": 8, **arguments}
    )


def approximator(network=None, adapter=DECLARED, roles=ROLES, **arguments):
    return ContinuousApproximator(
        adapter=adapter,
        roles=roles,
        inference_network=small() if network is None else network,
        standardize=("inference_variables", "inference_conditions"),
        **arguments,
    )


def built(seed=1, **arguments):
    made = approximator(**arguments)
    made.build(data(), seed=seed)
    return made


def test_draws_are_values_of_the_simulator():
    """Categories are values that were simulated, counts whole numbers from 0, exactly, in float64; also split
    into components."""
    made = built()
    draws = made.sample(num_samples=500, conditions={"x": data(5, seed=2)["x"]}, seed=3)
    assert set(np.unique(draws["choice"])) == {1.0, 3.0, 7.0}
    assert (draws["n"] == np.round(draws["n"])).all()
    assert draws["n"].min() >= 0
    assert not (draws["theta"] == np.round(draws["theta"])).any()
    split = made.sample(num_samples=2, conditions={"x": np.zeros((1, 2))}, split=True, seed=3)
    assert set(split) == {"choice_0", "theta_0", "n_0"}


def test_log_prob_is_a_density_times_probabilities():
    """Sums over categories and counts, and quadrature over theta in raw space, make 1."""
    made = built()
    line = np.linspace(-12, 12, 200)
    grid = np.stack(np.meshgrid([1.0, 3.0, 7.0], line, np.arange(60.0), indexing="ij"), axis=-1).reshape(
        -1, 3
    )
    rows = {name: grid[:, k : k + 1] for k, name in enumerate(ROLES["inference_variables"])}
    logs = made.log_prob(rows | {"x": np.tile([[3.0, 2.0]], (len(grid), 1))}, batch_size=len(grid))
    total = np.exp(logs).sum() * (line[1] - line[0])
    assert total == pytest.approx(1.0, abs=1e-3)


def test_values_outside_the_support_have_probability_zero():
    """-inf, without an error, for a category that was never simulated and for what is no count."""
    made = built()
    rows = {
        "choice": [1.0, 2.0, 7.0, 7.0],
        "theta": np.zeros(4),
        "n": [3.0, 3.0, 2.5, -1.0],
        "x": np.ones((4, 2)),
    }
    found = made.log_prob(rows)
    assert np.isfinite(found[0])
    assert np.isneginf(found[1:]).all()


def test_training_data_outside_the_declared_support_are_refused():
    """A category that is not listed, and a fraction declared as a count, with the cure."""
    made = built()
    wrong = data(10)
    wrong["choice"][4] = 2.0
    with pytest.raises(DataError, match=r"'choice' one of the 3 categories 1, 3, 7 .* row 4.*values=\["):
        made.prepare(wrong)
    with pytest.raises(DataError, match=r"'theta' a whole number from 0"):
        approximator(adapter=Adapter().as_count("theta")).build(data(), seed=1)


def test_discrete_variables_are_saved(tmp_path):
    """A file gives the same draws and log densities to the bit, and the values of the categories."""
    made = built()
    loaded = bf.load(made.save(tmp_path / "discrete.safetensors"))
    given = {"x": data(3, seed=2)["x"]}
    first, second = (one.sample(num_samples=20, conditions=given, seed=1) for one in (made, loaded))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert np.array_equal(made.log_prob(data(5)), loaded.log_prob(data(5)))
    assert loaded.discrete_variables == {"choice": [[1.0, 3.0, 7.0]], "n": [[]]}


@pytest.mark.parametrize("order", [["n", "choice", "theta"], ["theta", "n", "choice"]])
def test_roles_say_which_columns_are_discrete(order):
    """Whatever the order of the variables, those that are declared are the discrete columns."""
    made = built(roles={**ROLES, "inference_variables": order})
    columns = {column: kind for column, kind, _ in made.inference_network.discrete}
    assert columns == {order.index("n"): "count", order.index("choice"): "categorical"}
    mean, sd = made.standardizer.inference_variables_mean, made.standardizer.inference_variables_sd
    for column in columns:
        assert (float(mean[column]), float(sd[column])) == (0.0, 1.0)
    assert float(sd[order.index("theta")]) != 1.0


def test_components_of_one_variable_are_declared_one_by_one():
    """A variable of three components, of which two are discrete."""
    rows = data()
    joined = {"all": np.concatenate([rows["choice"], rows["theta"], rows["n"]], axis=1), "x": rows["x"]}
    adapter = Adapter().as_categorical("all", components=[0]).as_count("all", components=[2], upper=50)
    roles = {"inference_variables": ["all"], "inference_conditions": ["x"]}
    made = approximator(adapter=adapter, roles=roles)
    made.build(joined, seed=1)
    assert made.inference_network.discrete == ((0, "categorical", 3), (2, "count", 50))
    assert made.discrete_variables == {"all": [[1.0, 3.0, 7.0], None, []]}
    draws = made.sample(num_samples=300, conditions={"x": np.zeros((1, 2))}, seed=1)["all"]
    assert set(np.unique(draws[..., 0])) <= {1.0, 3.0, 7.0}
    assert draws[..., 2].max() <= 50


@pytest.mark.parametrize(
    "network", ["coupling_flow", "flow_matching", "diffusion_model", "consistency_model"]
)
def test_continuous_networks_refuse_declared_variables_before_training(network):
    """At once, when the workflow is made, by an adapter or by a prior, and with the cure."""
    cure = r"AutoregressiveMixture.*\"auto\""
    options = {"inference_conditions": "x", "inference_network": network}
    with pytest.raises(ConfigurationError, match=cure):
        bf.BasicWorkflow(inference_variables=["choice"], adapter=DECLARED, **options)
    prior = {"choice": torch.distributions.Categorical(torch.ones(3))}
    with pytest.raises(ConfigurationError, match=cure):
        bf.BasicWorkflow(inference_variables=["choice"], prior=prior, **options)
    bf.BasicWorkflow(
        inference_variables=["theta"],
        inference_conditions=["x", "choice"],
        inference_network=network,
        adapter=Adapter().as_categorical("choice"),
    )


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (torch.distributions.Categorical(torch.ones(3)), (0, "categorical", 3)),
        (torch.distributions.Bernoulli(0.3), (0, "categorical", 2)),
        (torch.distributions.Binomial(5, torch.tensor(0.3)), (0, "categorical", 6)),
        (torch.distributions.Binomial(500, torch.tensor(0.01)), (0, "count", 500)),
        (torch.distributions.Poisson(2.0), (0, "count", 2**24)),
        (torch.distributions.Geometric(torch.tensor(0.4)), (0, "count", 2**24)),
        (torch.distributions.NegativeBinomial(3.0, torch.tensor(0.4)), (0, "count", 2**24)),
    ],
)
def test_priors_of_discrete_support_declare(prior, expected):
    """Categories by their support, also those that were not simulated; counts with their bound."""
    torch.manual_seed(0)
    theta = prior.sample((60,)).numpy().astype(float)
    workflow = bf.BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        inference_network=small(),
        prior=prior,
        seed=1,
    )
    workflow.approximator.build({"theta": theta, "x": theta[:, None] * [1.0, 2.0]}, seed=1)
    assert workflow.approximator.inference_network.discrete == (expected,)


def test_few_distinct_whole_numbers_are_found_and_told(capsys, monkeypatch):
    """Categories and counts, once, with the way to say otherwise; nothing where a law is rounded or has many
    values, or where a row has a fraction."""
    monkeypatch.setenv("SBI_MODELS_PROGRESS", "1")
    made = approximator(adapter=Adapter().route(ROLES))
    made.build(data(1000), seed=1)
    assert made.discrete_variables == {"choice": [[1.0, 3.0, 7.0]], "n": [[]]}
    told = capsys.readouterr().err
    assert told.count("'choice' has few distinct values") == told.count("as_count('choice')") == 1
    assert told.count("as_categorical('n')") == 1
    rng = np.random.default_rng(1)
    roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    for theta in (
        np.round(rng.normal(10.0, 2.0, size=1000)),
        np.round(rng.normal(0.0, 3.0, size=1000)),
        rng.integers(0, 500, 1000),
        rng.poisson(100.0, 1000),
    ):
        made = approximator(adapter=Adapter().route(roles), roles=roles)
        with pytest.warns(TrustWarning, match=r"whole numbers only.*as_categorical.*as_count.*rng.uniform"):
            made.build({"theta": theta.astype(float), "x": rng.normal(size=(1000, 2))}, seed=1)
        assert made.discrete_variables == {}
    almost = rng.integers(0, 3, 1000).astype(float)
    almost[17] += 0.25
    made = approximator(adapter=Adapter().route(roles), roles=roles)
    made.build({"theta": almost, "x": rng.normal(size=(1000, 2))}, seed=1)
    assert made.discrete_variables == {}
    assert "distinct" not in capsys.readouterr().err


def test_what_an_adapter_changes_is_not_found():
    """A whole number that the user takes to the real line stays continuous, with the warning."""
    adapter = Adapter().constrain("choice", lower=0.0)
    made = approximator(adapter=adapter.route(ROLES))
    with pytest.warns(TrustWarning, match="'choice': it has whole numbers only"):
        made.build(data(1000), seed=1)
    assert made.discrete_variables == {"n": [[]]}


def test_a_later_step_must_not_change_a_declared_variable():
    """A logarithm after the declaration is refused; a step of another component is not."""
    with pytest.raises(ConfigurationError, match=r"no step that changes the values of 'n' after as_count"):
        approximator(adapter=DECLARED.shift("n", by=1.0)).build(data(), seed=1)
    rows = data()
    joined = {"all": np.concatenate([rows["choice"], np.exp(rows["theta"])], axis=1), "x": rows["x"]}
    roles = {"inference_variables": ["all"], "inference_conditions": ["x"]}
    adapter = Adapter().as_categorical("all", components=[0]).constrain("all", lower=[None, 0.0])
    made = approximator(adapter=adapter, roles=roles)
    made.build(joined, seed=1)
    assert made.inference_network.discrete == ((0, "categorical", 3),)


def test_the_adapter_travels_as_json():
    """Values of categories are in the JSON of a fitted adapter."""
    adapter = DECLARED.fitted({k: torch.as_tensor(v) for k, v in data(50).items()})
    again = Adapter.from_json(json.loads(json.dumps(adapter.to_json())))
    assert again.transforms[0].config()["values"] == {"choice": [[1.0, 3.0, 7.0]]}


def test_ensembles_of_discrete_posteriors(tmp_path):
    """Members train as one batch, agree on the values, and the file of the ensemble holds them."""
    workflow = bf.EnsembleWorkflow(
        inference_variables=ROLES["inference_variables"],
        inference_conditions="x",
        adapter=DECLARED,
        inference_networks=small(),
        ensemble_size=2,
        standardize="all",
        seed=1,
    )
    workflow.fit_offline(data(600), epochs=2, batch_size=100)
    assert np.isfinite(workflow.log_prob(data(20, seed=5))).all()
    loaded = bf.load(workflow.approximator.save(tmp_path / "ensemble.safetensors"))
    draws = loaded.sample(num_samples=100, conditions={"x": np.zeros((2, 2))}, seed=1)
    assert set(np.unique(draws["choice"])) <= {1.0, 3.0, 7.0}
    assert np.isfinite(
        [certificate.disagreement for certificate in loaded.certify({"x": np.zeros((2, 2))})]
    ).all()


def test_heavy_tails_of_counts_are_no_reason_for_a_warning():
    """Log-uniform counts from 1 to a million, which standardization would crush, are not standardized."""
    rng = np.random.default_rng(0)
    n = np.round(np.exp(rng.exponential(3.0, size=(2000, 1)).clip(max=14)))
    roles = {"inference_variables": ["n"], "inference_conditions": ["x"]}
    made = approximator(adapter=Adapter().as_count("n"), roles=roles)
    made.build({"n": n, "x": rng.normal(size=(2000, 2))}, seed=1)
    made = approximator(adapter=Adapter().route(roles), roles=roles)
    with pytest.warns(TrustWarning, match="standardization crushes it"):
        made.build({"n": n + 0.5, "x": rng.normal(size=(2000, 2))}, seed=1)


def test_half_precision_and_batched_members_take_discrete_columns():
    """The loss in bfloat16 is near that in float32; members in one batch have the losses of each alone."""
    first, second = built(seed=1), built(seed=2)
    prepared = first.prepare(data(50, seed=3))
    exact = first.loss(prepared).mean()
    with torch.autocast("cpu", torch.bfloat16):
        assert float((first.loss(prepared).mean() - exact).detach()) == pytest.approx(0.0, abs=0.05)
    batch = BatchedMembers({"a": first, "b": second})
    losses = batch.losses({"a": prepared, "b": prepared}, {"a": (), "b": ()})
    for name, member in (("a", first), ("b", second)):
        torch.testing.assert_close(losses[name], member.loss(prepared), rtol=1e-4, atol=1e-4)
