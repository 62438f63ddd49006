"""Data sets of different lengths in requests to a served model: nested lists, answered as one by one."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

import sbi_models as bf
from sbi_models.networks import CouplingFlow, DeepSet, NestedSet
from sbi_models.ragged import as_ragged
from sbi_models.tracking import Store, Tracker, register, served
from sbi_models.tracking.registry import signature_of
from sbi_models.tracking.request_handling import answer
from sbi_models.tracking.served import PosteriorSampler
from sbi_models.tracking.server import MOST_BYTES, most_bytes

SET = DeepSet(summary_dim=4, widths=(8,), head_widths=(8,))


def _prior(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"mu": rng.normal(size=1)}


def _sets(mu: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.normal(mu, size=(rng.integers(1, 6), 1))}


def _series(mu: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.normal(mu, size=(3, 1))}


def _with_gaps(mu: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = rng.normal(mu, size=(rng.integers(2, 6), 1))
    return {"x": np.where(rng.random(x.shape) < 0.3, np.nan, x)}


def _groups(mu: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    return {"x": [rng.normal(mu, size=(rng.integers(1, 5), 1)) for _ in range(rng.integers(1, 4))]}


def _sampler(path: Path, likelihood: Any = _sets, **options: Any) -> PosteriorSampler:
    """A served model of untrained networks."""
    made = bf.BasicWorkflow(
        inference_variables="mu",
        summary_variables="x",
        inference_network=CouplingFlow(depth=1, widths=(8,)),
        seed=1,
        **{"summary_network": SET, **options},
    ).approximator
    made.build(bf.make_simulator([_prior, likelihood]).sample(64, seed=1, progress=False), seed=1)
    made.save(path)
    sampler = PosteriorSampler()
    sampler.load_context(SimpleNamespace(artifacts={"approximator": str(path)}))
    return sampler


def _asked(sampler: PosteriorSampler, inputs: Any, **params: Any) -> tuple[int, Any]:
    body = {"inputs": inputs, "params": {"num_samples": 6, "seed": 1} | params}
    status, content = answer(sampler, json.dumps(body).encode())
    return status, json.loads(content)


THREE = [[[0.1], [0.5]], [[1.0], [2.0], [0.3], [0.4]], [[-0.7]]]


def test_data_sets_of_three_lengths_are_answered_as_one_by_one(tmp_path: Path) -> None:
    """One request for 2, 4 and 1 elements has, of each, the density of its draws alone, and the first the
    draws and certificate of its own request, to 1e-5; arrays of objects in Python are the same data."""
    sampler = _sampler(tmp_path / "model")
    status, together = _asked(sampler, THREE, output="log_density", certificate=True)
    assert status == 200, together
    together = together["predictions"]
    draws, densities = np.array(together["mu"]), np.array(together["log_density"])
    assert draws.shape == (3, 6, 1)
    model = sampler._approximator
    for row, one in enumerate(THREE):
        alone = model.log_prob({"mu": draws[row], "x": np.repeat(np.array(one)[None], 6, axis=0)})
        np.testing.assert_allclose(densities[row], alone, atol=1e-5)
    _, first = _asked(sampler, THREE[:1], output="log_density", certificate=True)
    np.testing.assert_allclose(first["predictions"]["mu"], draws[:1], atol=1e-5)
    assert len(together["certificates"]) == 3
    in_python = sampler.predict(
        None, as_ragged([np.array(one) for one in THREE]), {"num_samples": 6, "seed": 1}
    )
    np.testing.assert_allclose(in_python, draws, atol=1e-5)
    _, named = _asked(sampler, {"x": THREE}, output="summary")
    assert np.shape(named["predictions"]["mu"]["mean"]) == (3, 1)


@pytest.mark.filterwarnings("default::UserWarning")  # MLflow's own, about its own classes
def test_mlflow_takes_arrays_of_objects(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by MLflow, which enforces signatures, a registered model gives data sets of three lengths,
    as an array of objects, the draws of the sampler; other widths are refused."""
    sampler = _sampler(tmp_path / "model")
    register(store, "sets", tmp_path / "model", Tracker.start(store, "npe", "first", "key").run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri)
    model, params = mlflow.pyfunc.load_model("models:/sets/1"), {"num_samples": 6, "seed": 1}
    x = as_ragged([np.array(one) for one in THREE])
    together = model.predict(x, params=params)
    np.testing.assert_array_equal(together, sampler.predict(None, x, params))
    np.testing.assert_allclose(model.predict(np.array(THREE[:1]), params=params), together[:1], atol=1e-5)
    with pytest.raises(MlflowException, match="other elements"):
        model.predict(as_ragged([np.zeros((2, 2)), np.zeros((3, 2))]), params=params)


def test_groups_and_gaps_may_differ_in_length(tmp_path: Path) -> None:
    """Groups of different numbers and sizes, and null among data sets of several lengths, are answered."""
    nested = _sampler(tmp_path / "nested", _groups, summary_network=NestedSet(SET, SET))
    status, content = _asked(nested, [[[[0.1], [0.2]], [[0.3]]], [[[1.0]]]])
    assert status == 200, content
    gaps = _sampler(tmp_path / "gaps", _with_gaps, missing={"x": "there"})
    status, content = _asked(gaps, [[[0.1], [None]], [[1.0], [None], [0.3]]])
    assert status == 200, content
    expected = gaps._approximator.sample(
        num_samples=6,
        conditions={"x": [np.array([[0.1], [np.nan]]), np.array([[1.0], [np.nan], [0.3]])]},
        seed=1,
    )["mu"]
    np.testing.assert_allclose(content["predictions"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("likelihood", "inputs", "message"),
    [
        (_sets, [[[0.1, 0.2]], [[0.1]]], "data sets that differ in their length alone in 'x'"),
        (_sets, [[[0.1]], [[0.1, 0.2], [0.3, 0.4]]], "differ in their length alone"),
        (_sets, [[[0.1]], ["text"]], "Expected real numbers in data set 1 of 'x'"),
        (_sets, [[[0.1]], [[None], [0.2]]], "got 1 of 3 that are NaN or infinite"),
        (_sets, [[[0.1]], 3.0], "'x'"),
        (_sets, [[[0.1]], {"a": [1.0]}], "'x'"),
        (_series, THREE, "numbers of one shape in 'x', got ragged lists"),
    ],
    ids=["widths", "widths of all", "text", "null", "a number", "an object", "a model of one length"],
)
def test_what_are_no_data_sets_is_refused(likelihood: Any, inputs: Any, message: str, tmp_path: Path) -> None:
    """Unequal widths, what is no data, and lengths that the model was not trained for have status 400."""
    status, content = _asked(_sampler(tmp_path / "model", likelihood), inputs)
    assert status == 400, content
    assert message in content["message"]


def test_no_request_takes_more_memory_than_its_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each data set counts as many numbers as the longest, which is what the networks compute with."""
    monkeypatch.setattr(served, "MAX_NUMBERS", 50)
    sampler = _sampler(tmp_path / "model")
    status, content = _asked(sampler, [[[0.0]] * 20, [[0.0]], [[0.0]]])
    assert (status, "at most 50 numbers in one request, got 60" in content["message"]) == (400, True)
    assert _asked(sampler, [[[0.0]] * 20, [[0.0]]], output="log_density")[0] == 200


def test_signature_and_size_of_requests_leave_lengths_open(tmp_path: Path) -> None:
    """MLflow's signature fixes the last axis alone, and a body may have 64 MiB."""
    approximator = _sampler(tmp_path / "model")._approximator
    (inputs,) = signature_of(approximator).inputs.inputs
    assert inputs.shape == (-1, -1, 1)
    assert most_bytes(approximator) == MOST_BYTES
