"""Posteriors of discrete parameters, trained: exact ones by enumeration, "auto", verdicts and exports."""

import numpy as np
import pytest
from change_point import SIMULATOR, exact_posterior, total_variation

import sbi_models as bf
from sbi_models.adapters import Adapter
from sbi_models.networks import AutoregressiveMixture
from sbi_models.workflows.auto import schedules
from sbi_models.workflows.auto import selection as automatic


def change_points(**arguments):
    """Number of change points and the place of the first, given eight counts."""
    return bf.BasicWorkflow(
        SIMULATOR,
        inference_variables=["number", "first"],
        inference_conditions="x",
        inference_network=AutoregressiveMixture(components=1, **arguments),
        adapter=Adapter().as_categorical(["number", "first"]),
        standardize="all",
        initial_learning_rate=2e-3,
        ema=0.99,
        seed=1,
        progress=False,
    )


def mean_variation(workflow, number):
    """Mean total variation of the joint law from the exact one, over fresh data sets, by `log_prob`."""
    fresh, found = SIMULATOR.sample(number, seed=99, progress=False), []
    for x in fresh["x"]:
        exact = exact_posterior(x)
        cells = np.array(list(exact), dtype=float)
        rows = {"number": cells[:, 0], "first": cells[:, 1], "x": np.tile(x, (len(cells), 1))}
        logs = workflow.log_prob(rows)
        found.append(total_variation(dict(zip(exact, np.exp(logs), strict=True)), exact))
    return float(np.mean(found))


@pytest.mark.nightly
def test_a_change_point_is_nearly_exact_from_few_simulations():
    """From 3 000 simulations, the total variation from the enumerated posterior is below .2, and a place that
    goes with no number of changes has hardly any probability."""
    workflow = change_points(trunk_width=64, head_width=32, dropout=0.1)
    workflow.fit_offline(workflow.simulate(3_000, seed=2), epochs=12, batch_size=128)
    assert mean_variation(workflow, 60) < 0.2
    draws = workflow.sample(
        num_samples=400, conditions={"x": SIMULATOR.sample(20, seed=3, progress=False)["x"]}, seed=1
    )
    impossible = (draws["number"] == 0) != (draws["first"] == 0)
    assert impossible.mean() < 0.01


@pytest.mark.nightly
def test_a_change_point_is_exact_from_20_000_simulations():
    """The mean total variation from the enumerated posterior is at most .05; a minute of training."""
    workflow = change_points(trunk_width=64, head_width=64, dropout=0.15)
    data = workflow.simulate(20_000, seed=2)
    workflow.fit_offline(data, epochs=20, batch_size=256, validation_data=1_000)
    assert mean_variation(workflow, 200) <= 0.05


def switch(rng):
    return {"kind": float(rng.integers(0, 3)), "mu": rng.normal()}


def view(kind, mu, rng):
    return {"x": np.array([mu + 0.5 * rng.normal(), kind + 0.7 * rng.normal()])}


@pytest.mark.nightly
@pytest.mark.parametrize("declared", [False, True], ids=["found", "declared"])
def test_auto_finds_or_takes_categories(declared, monkeypatch):
    """The posterior of a category is within .1 of the exact one at three data sets, from 600 simulations and
    a learned likelihood, whether the category is found or declared."""
    monkeypatch.setattr(automatic, "_SYNTHETIC", 10_000)
    monkeypatch.setattr(automatic, "_PRIOR_DRAWS", 2_000)
    short = schedules.TrainingSchedule(128, 200, 3e-3, 0.0, 0.99)
    monkeypatch.setattr(schedules, "for_synthetic_data", lambda number: short)
    monkeypatch.setattr(schedules, "for_simulations", lambda number: short)
    workflow = bf.BasicWorkflow(
        bf.make_simulator([switch, view]),
        inference_variables=["kind", "mu"],
        inference_conditions="x",
        inference_network="auto",
        adapter=Adapter().as_categorical("kind") if declared else None,
        seed=1,
        progress=False,
    )
    workflow.fit_offline(workflow.simulate(600, seed=1))
    choices = workflow.automatic.choices
    assert choices["kind"] == "as_categorical"
    assert "likelihood" in choices
    assert workflow.approximator.discrete_variables == {"kind": [[0.0, 1.0, 2.0]]}
    x = np.array([[0.3, 0.2], [0.0, 1.4], [1.0, 2.1]])
    draws = workflow.sample(num_samples=4000, conditions={"x": x}, seed=1)
    exact = np.exp(-0.5 * ((x[:, 1:] - np.arange(3)) / 0.7) ** 2)
    shares = (draws["kind"] == np.arange(3)).mean(axis=1)
    np.testing.assert_allclose(shares, exact / exact.sum(axis=1, keepdims=True), atol=0.1)
    np.testing.assert_allclose(draws["mu"].mean(axis=1)[:, 0], 0.8 * x[:, 0], atol=0.15)


def trained(rows=2_000):
    """A category, a count and a number given two numbers."""

    def draw(rng):
        kind = float(rng.choice([1.0, 4.0]))
        n = float(rng.poisson(3 * kind))
        return {"kind": kind, "n": n, "mu": rng.normal(kind)}

    def see(kind, n, mu, rng):
        return {"x": np.array([n + mu, kind + rng.normal(), mu + rng.normal()])}

    workflow = bf.BasicWorkflow(
        bf.make_simulator([draw, see]),
        inference_variables=["kind", "n", "mu"],
        inference_conditions="x",
        inference_network=AutoregressiveMixture(components=4, trunk_width=32, head_width=32),
        adapter=Adapter().as_categorical("kind").as_count("n"),
        standardize="all",
        initial_learning_rate=2e-3,
        seed=1,
        progress=False,
    )
    workflow.fit_offline(workflow.simulate(rows, seed=2), epochs=8, batch_size=128)
    return workflow


def test_what_a_workflow_does_with_discrete_parameters(tmp_path):
    """Verdict, figures, metrics, certificates, export to ArviZ and a loaded file work; a normal proposal is
    refused."""
    workflow = trained()
    verdict = workflow.verdict(60, num_samples=100, seed=3)
    (kind,) = [row for row in verdict.parameters if row.name == "kind"]
    assert [one.value for one in kind.categories] == [1.0, 4.0]
    figures = workflow.plot_default_diagnostics(20, num_samples=30, seed=3)
    assert {"confusion", "reliability", "recovery"} <= set(figures)
    assert workflow.compute_default_diagnostics(20, num_samples=30, seed=3).shape == (4, 3)
    x = workflow.simulate(3, seed=4)["x"]
    draws = workflow.sample(num_samples=40, conditions={"x": x}, seed=5)
    posterior = bf.diagnostics.to_arviz(draws)["posterior"]
    assert set(np.unique(posterior["kind"])) <= {1.0, 4.0}
    assert all(certificate.p_value is not None for certificate in workflow.approximator.certify({"x": x}))
    with pytest.raises(bf.errors.ConfigurationError, match=r"'kind', 'n', declared discrete"):
        bf.workflows.sequential_proposal(workflow.simulator, workflow.approximator, {"x": x[:1]}, seed=1)
    loaded = bf.load(workflow.approximator.save(tmp_path / "kinds.safetensors"))
    again = bf.BasicWorkflow(inference_network=loaded, seed=1).sample(
        num_samples=40, conditions={"x": x}, seed=5
    )
    assert all(np.array_equal(again[name], draws[name]) for name in draws)


def test_composition_refuses_discrete_parameters():
    """When the workflow is made: scores of categories do not exist."""
    with pytest.raises(bf.errors.ConfigurationError, match="'kind', declared discrete"):
        bf.CompositionalWorkflow(
            inference_variables="kind", inference_conditions="x", adapter=Adapter().as_categorical("kind")
        )


@pytest.mark.nightly
def test_choices_beside_reaction_times_have_a_density():
    """The learned density of a choice and a time given the drift draws choices that have the exact
    probabilities, within .04."""
    rng = np.random.default_rng(0)
    drift = rng.normal(size=(5_000, 1))
    choice = (rng.uniform(size=(5_000, 1)) < 1 / (1 + np.exp(-2 * drift))).astype(float)
    log_time = -0.3 * np.abs(drift) + 0.3 * rng.normal(size=(5_000, 1)) + 0.2 * choice
    workflow = bf.BasicWorkflow(
        inference_variables=["choice", "log_time"],
        inference_conditions="drift",
        inference_network=AutoregressiveMixture(components=3, trunk_width=32, head_width=32),
        adapter=Adapter().as_categorical("choice"),
        standardize="all",
        initial_learning_rate=2e-3,
        seed=1,
        progress=False,
    )
    workflow.fit_offline({"choice": choice, "log_time": log_time, "drift": drift}, epochs=6, batch_size=128)
    at = np.array([[-1.0], [0.0], [1.0]])
    shares = workflow.sample(num_samples=20_000, conditions={"drift": at}, seed=2)["choice"].mean(axis=1)
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-2 * at)), atol=0.04)
