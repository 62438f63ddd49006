"""A learned likelihood that is registered and served: posterior draws, and log likelihoods, of sets of normal
numbers of any length, whose posterior is known."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

import sbi_models as bf
from sbi_models.errors import ConfigurationError
from sbi_models.ragged import as_ragged
from sbi_models.tracking import Store, Tracker, register
from sbi_models.tracking.registry import signature_of
from sbi_models.tracking.request_handling import answer
from sbi_models.tracking.served import PosteriorSampler
from sbi_models.tracking.server import MOST_BYTES, most_bytes
from sbi_models.workflows.likelihood.implied import as_posterior

NOISE = 0.8
SETS = [[[0.1], [0.5]], [[1.0], [2.0], [0.3], [0.4]], [[-0.7]]]


def _observe(mu: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": mu + NOISE * rng.normal(size=mu.shape)}


def _trained(prior: Any) -> bf.LikelihoodWorkflow:
    """A likelihood that its network has from its start, by least squares."""
    simulator = bf.make_simulator([prior, _observe], is_batched=True)
    workflow = bf.LikelihoodWorkflow(
        simulator,
        parameters="mu",
        observables="x",
        iid="elements",
        network=bf.networks.AutoregressiveMixture(1, trunk_width=0, head_width=8, head_blocks=0),
        initial_learning_rate=1e-7,
        seed=1,
        progress=False,
    )
    workflow.fit_offline(simulator.sample(50_000, seed=1, progress=False), epochs=1, batch_size=50_000)
    return workflow


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workflow = _trained({"mu": Normal(0.5, 1.0).expand((1,))})
    return workflow.approximator.save(tmp_path_factory.mktemp("likelihood") / "model.safetensors")


@pytest.fixture(scope="module")
def sampler(file: Path) -> PosteriorSampler:
    return _sampler(file)


def _sampler(file: Path) -> PosteriorSampler:
    sampler = PosteriorSampler()
    sampler.load_context(SimpleNamespace(artifacts={"approximator": str(file)}))
    return sampler


def _asked(sampler: PosteriorSampler, inputs: Any, **params: Any) -> tuple[int, Any]:
    body = {"inputs": inputs, "params": {"num_samples": 500, "seed": 1} | params}
    status, content = answer(sampler, json.dumps(body).encode())
    return status, json.loads(content)


def test_draws_of_sets_of_three_lengths_are_of_the_conjugate_posterior(sampler: PosteriorSampler) -> None:
    """Under the prior that the file has kept: means to 0.2 sd, sds to 12 %, and reports without doubts."""
    # seconds: chains of three data sets
    status, content = _asked(sampler, SETS, output="summary", certificate=True, num_samples=2000)
    assert status == 200, content
    assert "warnings" not in content
    summary, reports = content["predictions"]["mu"], content["predictions"]["reports"]
    for row, one in enumerate(SETS):
        precision = 1 + len(one) / NOISE**2
        mean = (0.5 + np.sum(one) / NOISE**2) / precision
        assert abs(summary["mean"][row][0] - mean) < 0.2 / np.sqrt(precision)
        np.testing.assert_allclose(summary["sd"][row][0], precision**-0.5, rtol=0.12)
        evidence = stats.multivariate_normal.logpdf(
            np.ravel(one), np.full(len(one), 0.5), NOISE**2 * np.eye(len(one)) + 1
        )
        assert abs(reports[row]["log_evidence"] - evidence) < 0.1
        assert reports[row]["warnings"] == []
    _, one = _asked(sampler, {"x": SETS[2:]}, num_samples=5)
    assert np.shape(one["predictions"]) == (1, 5, 1)


def test_log_likelihoods_are_those_of_normal_numbers(sampler: PosteriorSampler) -> None:
    """For parameters beside the data, to 1 %; of as many data sets as parameters."""
    status, content = _asked(sampler, {"mu": [[0.3], [0.0], [-1.0]], "x": SETS}, output="log_likelihood")
    assert status == 200, content
    exact = [
        stats.norm.logpdf(np.ravel(one), mu, NOISE).sum()
        for mu, one in zip([0.3, 0.0, -1.0], SETS, strict=True)
    ]
    np.testing.assert_allclose(content["predictions"]["log_likelihood"], exact, rtol=0.02)


@pytest.mark.parametrize(
    ("inputs", "params", "message"),
    [
        (SETS, {"output": "log_density"}, "Expected output as one of draws, summary, log_likelihood"),
        (SETS, {"output": "log_likelihood"}, "Expected a dict with the arrays mu, x, got one array"),
        ({"x": SETS}, {"output": "log_likelihood"}, "Expected the arrays mu, x, got none named 'mu'"),
        ({"x": SETS, "mu": [[0.0]]}, {"output": "log_likelihood"}, "Expected parameters for each of 3"),
        ({"x": SETS, "mu": [[0.0]] * 3}, {}, "Unknown array 'mu'"),
        ({"x": SETS, "mu": [[None]] * 3}, {"output": "log_likelihood"}, "got 3 of 3 that are NaN"),
        ({"x": SETS, "mu": [[0.0, 1.0]] * 3}, {"output": "log_likelihood"}, "'mu'"),
        ([[[None], [1.0]]], {}, "Expected finite numbers in 'x', got 1 of 2"),
        ([[[0.1, 0.2]]], {}, "'x'"),
        ([[]], {}, "'x'"),
        (SETS, {"output": "log_likelihood", "certificate": True}, "Expected"),
        (SETS, {"num_samples": 0}, "Expected num_samples as an integer from 1"),
        (SETS * 4000, {}, "at most 10000 data sets"),
    ],
)
def test_wrong_requests_are_refused_in_words(
    sampler: PosteriorSampler, inputs: Any, params: dict[str, Any], message: str
) -> None:
    status, content = _asked(sampler, inputs, **params)
    assert status == 400, content
    assert message in content["message"]


def test_parameters_outside_of_the_support_have_no_likelihood(tmp_path: Path) -> None:
    """Null, as JSON has no minus infinity; and draws keep to the support, though the data lie beyond."""
    workflow = _trained({"mu": torch.distributions.Uniform(torch.zeros(1), torch.ones(1))})
    sampler = _sampler(workflow.approximator.save(tmp_path / "model"))
    status, content = _asked(sampler, {"mu": [[-0.1], [0.5]], "x": [[[0.0]]] * 2}, output="log_likelihood")
    assert status == 200, content
    outside, inside = content["predictions"]["log_likelihood"]
    assert outside is None
    assert np.isfinite(inside)


def test_without_a_prior_there_are_log_likelihoods_alone(tmp_path: Path) -> None:
    """A simulator that draws its parameters by a function leaves no density: a clear 400 for draws."""

    def prior(batch_shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"mu": rng.normal(size=(*batch_shape, 1))}

    sampler = _sampler(_trained(prior).approximator.save(tmp_path / "model"))
    status, content = _asked(sampler, SETS)
    assert (status, "Expected a prior with a density" in content["message"]) == (400, True)
    assert _asked(sampler, {"mu": [[0.0]], "x": SETS[:1]}, output="log_likelihood")[0] == 200


def test_models_of_posteriors_have_no_likelihood(tmp_path: Path) -> None:
    workflow = bf.BasicWorkflow(
        inference_variables="mu",
        inference_conditions="x",
        inference_network=bf.networks.CouplingFlow(depth=1, widths=(8,)),
        seed=1,
    )
    rows = np.random.default_rng(1).normal(size=(64, 1))
    workflow.approximator.build({"mu": rows, "x": rows}, seed=1)
    sampler = _sampler(workflow.approximator.save(tmp_path / "model"))
    status, content = _asked(sampler, [[0.0]], output="log_likelihood")
    assert (status, "and no likelihood" in content["message"]) == (400, True)


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_a_registered_likelihood_is_loaded_with_its_prior(
    file: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By MLflow, which takes parameters with the data, and by `bf.load`, for a workflow that needs no
    simulator: both give the same draws, and the same log likelihoods of data sets of three lengths."""
    run = Tracker.start(store, "nle", "first", "key").run_id
    register(store, "numbers", file, run)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    model, params = mlflow.pyfunc.load_model("models:/numbers/1"), {"num_samples": 6, "seed": 1}
    x = as_ragged([np.array(one) for one in SETS])
    data = {"mu": np.zeros((3, 1)), "x": x}
    logs = model.predict(data, params={"output": "log_likelihood"})["log_likelihood"]
    workflow = bf.LikelihoodWorkflow(network=bf.load("models:/numbers/1", store))
    np.testing.assert_array_equal(logs, workflow.log_likelihood(data))
    one = {"x": x[:1]}  # seconds: chains, twice, and MLflow's registration
    draws = workflow.sample(num_samples=6, conditions=one, seed=1)["mu"]
    np.testing.assert_array_equal(draws, model.predict(one, params=params))
    assert "Likelihood of `x` given `mu`" in store.client.get_registered_model("numbers").description


def test_signature_and_size_of_requests(file: Path) -> None:
    """MLflow lists what comes out, and leaves what goes in to the model; a body may have 64 MiB."""
    approximator = bf.load(file)
    signature = signature_of(approximator)
    assert signature.inputs is None
    assert signature.outputs.inputs[0].shape == (-1, -1, 1)
    assert most_bytes(approximator) == MOST_BYTES
    assert as_posterior(approximator).any_length == {"x": 1}


def test_files_of_earlier_versions_have_no_prior(file: Path) -> None:
    """They load, and draws ask for one."""
    approximator = bf.load(file)
    del approximator.info["likelihood"]["prior"]
    workflow = bf.LikelihoodWorkflow(network=approximator)
    with pytest.raises(ConfigurationError, match="Expected a prior with a density"):
        workflow.sample(num_samples=5, conditions={"x": np.zeros((1, 1, 1))})
