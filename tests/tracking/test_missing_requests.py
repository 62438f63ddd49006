"""Missing values in requests to a served model: NaN, or null in JSON."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sbi_models as bf
from sbi_models.networks import CouplingFlow
from sbi_models.tracking.request_handling import answer
from sbi_models.tracking.served import PosteriorSampler


def _prior(batch_size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"theta": rng.normal(size=(batch_size, 1))}


def _with_gaps(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = theta + rng.normal(size=(len(theta), 3))
    return {"x": np.where(rng.random(x.shape) < 0.3, np.nan, x)}


def _complete(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": theta + rng.normal(size=(len(theta), 3))}


def _sampler(path: Path, likelihood: Any, **options: Any) -> tuple[PosteriorSampler, Any]:
    """A served model of untrained networks, and its approximator."""
    made = bf.BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        inference_network=CouplingFlow(depth=1, widths=(8,)),
        seed=1,
        **options,
    ).approximator
    made.build(bf.make_simulator([_prior, likelihood], is_batched=True).sample(64, seed=1), seed=1)
    made.save(path)
    sampler = PosteriorSampler()
    sampler.load_context(SimpleNamespace(artifacts={"approximator": str(path)}))
    return sampler, made


def _asked(sampler: PosteriorSampler, inputs: str) -> tuple[int, Any]:
    status, content = answer(
        sampler, f'{{"inputs": {inputs}, "params": {{"num_samples": 4, "seed": 1}}}}'.encode()
    )
    return status, json.loads(content)


def test_null_is_a_missing_value(tmp_path: Path) -> None:
    """null and NaN in a request give the draws that NaN gives in Python, also where all of a data set is
    missing, beside others or alone."""
    sampler, made = _sampler(tmp_path / "model", _with_gaps, missing={"x": "x_there"})
    x = np.array([[1.0, np.nan, 0.5], [np.nan] * 3])
    expected = made.sample(num_samples=4, conditions={"x": x}, seed=1)["theta"]
    for inputs in ("[[1.0, null, 0.5], [null, null, null]]", "[[1, NaN, 0.5], [NaN, null, NaN]]"):
        status, content = _asked(sampler, inputs)
        assert status == 200, content
        np.testing.assert_allclose(content["predictions"], expected, rtol=1e-6)
    np.testing.assert_array_equal(sampler.predict(None, x, {"num_samples": 4, "seed": 1}), expected)
    alone = made.sample(num_samples=4, conditions={"x": x[1:]}, seed=1)["theta"]
    np.testing.assert_allclose(_asked(sampler, "[[null, null, null]]")[1]["predictions"], alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("missing", "inputs", "message"),
    [
        (False, "[[1.0, null, 0.5]]", "got 1 of 3 that are NaN or infinite. This model was trained without"),
        (True, "[[1.0, Infinity, null]]", "got 1 of 3 that are infinite. Put null where values are missing"),
        (True, '[[1.0, "NA", null]]', "Expected real numbers in 'x'"),
        (True, "[[1.0, null], [null]]", "numbers of one shape in 'x', got ragged lists"),
        (True, "[null]", "of shape (n, 3), as in training"),
    ],
)
def test_what_is_no_missing_value_is_refused(
    missing: bool, inputs: str, message: str, tmp_path: Path
) -> None:
    """null where the model was trained without gaps, inf, text, ragged lists, and null for a whole row have
    status 400 and the reason."""
    options = {"missing": {"x": "x_there"}} if missing else {}
    sampler, _ = _sampler(tmp_path / "model", _with_gaps if missing else _complete, **options)
    status, content = _asked(sampler, inputs)
    assert status == 400
    assert message in content["message"]
