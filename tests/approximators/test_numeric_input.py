"""One front door for numbers: what would lose something is refused, in the same words wherever it comes
in."""

import re
import warnings
from collections.abc import Callable
from datetime import date
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import sbi_models as bf
from sbi_models.datasets import read_file
from sbi_models.diagnostics.metrics import fractional_ranks
from sbi_models.errors import DataError, SbiModelsError
from sbi_models.numeric_input import real_array

N = 64
X = np.random.default_rng(0).normal(size=(N, 2))
MASK = np.zeros((N, 2), dtype=bool)
MASK[5] = True
REFUSED = {
    "complex": (X + 1j, r"real numbers .*got complex128.*x\.real, x\.imag"),
    "complex tensor": (torch.as_tensor(X + 1j), r"real numbers .*got complex128"),
    "list of complex": ((X + 1j).tolist(), r"real numbers .*got complex128"),
    "masked": (np.ma.masked_array(X, MASK), r"masked array with 2 of 128 values masked.*~x\.mask"),
    "list of masked": (list(np.ma.masked_array(X, MASK)), r"masked array with 2 of 2 values masked"),
    "bfloat16": (torch.as_tensor(X).bfloat16(), r"got torch\.bfloat16\. Pass x\.float\(\)"),
    "list of bfloat16": (list(torch.as_tensor(X).bfloat16()), r"got torch\.bfloat16"),
    "sparse tensor": (
        torch.as_tensor(X).to_sparse(),
        r"dense tensor .*got torch\.sparse_coo\. Pass x\.to_dense",
    ),
    "sparse matrix": (scipy.sparse.csr_matrix(X), r"dense array .*sparse csr_matrix\. Pass x\.toarray"),
    "dates": (np.full((N, 2), np.datetime64("2020-01-01")), r"got datetime64.*np\.timedelta64"),
    "durations": (np.full((N, 2), np.timedelta64(3, "s")), r"got timedelta64.*Divide by a unit"),
    "date objects": (np.full((N, 2), date(2020, 1, 1)), r"got object of date"),
    "text": (X.astype(str), r"got <U.*Convert text"),
    "bytes": (X.astype(bytes), r"got \|S.*Convert text"),
    "objects": (X.astype(object), r"got object of float.*dtype=float"),
    "fractions": ([[Fraction(1, 3), Fraction(1, 2)]] * N, r"got object of Fraction"),
    "missing in pandas": (pd.DataFrame(X).astype("Float64").mask(MASK), r"got object of (float|NAType)"),
    "categories": (pd.Series(["a", "b"] * (N // 2)).astype("category"), r"got object of str"),
    "records": (np.zeros(N, dtype=[("a", float), ("b", float)]), r"real numbers .*one by one"),
    "widths": ([[[1.0, 2.0]]] * (N - 1) + [[[1.0]]], r"of one shape .*ragged|in their length alone"),
}
TAKEN = {
    "lists": X.tolist(),
    "tensor": torch.as_tensor(X),
    "tensor with gradient": torch.as_tensor(X).requires_grad_(),
    "list of tensors": list(torch.as_tensor(X).requires_grad_()),
    "conjugate view": torch.as_tensor(X + 0j).conj().real,
    "nothing masked": np.ma.masked_array(X, np.zeros_like(MASK)),
    "frame": pd.DataFrame(X),
    "reversed": X[::-1][::-1],
}


@pytest.fixture(scope="module")
def made():
    """A trained workflow."""
    workflow = bf.BasicWorkflow(inference_variables="theta", inference_conditions="x", seed=1, progress=False)
    workflow.fit_offline({"theta": X, "x": X}, epochs=1, batch_size=64)
    return workflow


@pytest.mark.parametrize(("value", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_lose_something_is_refused_everywhere(made, value, message):
    """Training, conditions, densities, estimates of fit and diagnostics refuse it with the cure, and nothing
    is lost without a word."""
    doors = {
        "fit_offline": lambda: made.fit_offline({"theta": X, "x": value}, epochs=1),
        "validation": lambda: made.fit_offline(
            {"theta": X, "x": X}, epochs=1, validation_data={"theta": X, "x": value}
        ),
        "sample": lambda: made.sample(num_samples=2, conditions={"x": value}),
        "log_prob": lambda: made.log_prob({"theta": value, "x": X}),
        "certify": lambda: made.certify({"x": value}),
        "diagnostics": lambda: made.compute_default_diagnostics(
            test_data={"theta": value, "x": X}, num_samples=20
        ),
        "metrics": lambda: fractional_ranks(value, X),
        "simulator": lambda: bf.make_simulator(lambda: {"x": value}).sample(2, seed=1),
        "fixed": lambda: bf.make_simulator(lambda rng: {"x": rng.normal(size=2)}).sample(N, seed=1, x=value),
        "augmentation": lambda: made.fit_offline(
            {"theta": X, "x": X}, epochs=1, augmentations=lambda batch: batch | {"x": value}
        ),
        "load_fn": lambda: read_file(None, lambda path: {"x": value}),
    }
    said = {name: _said_by(door) for name, door in doors.items()}
    assert [name for name, words in said.items() if not re.search(message, words)] == []


def _said_by(door: Callable[[], object]) -> str:
    """The error of this package that a call ends with; nothing if it ends well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            door()
    except SbiModelsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("value", TAKEN.values(), ids=TAKEN)
def test_what_loses_nothing_is_taken(made, value):
    """Lists, tensors, frames, views and masked arrays without a masked value are the numbers that they
    hold."""
    np.testing.assert_array_equal(real_array(value, "'x'"), X)
    expected = made.sample(num_samples=2, conditions={"x": X}, seed=1)["theta"]
    np.testing.assert_array_equal(
        made.sample(num_samples=2, conditions={"x": value}, seed=1)["theta"], expected
    )


def test_a_copy_shares_no_memory():
    """With copy, neither arrays nor tensors share memory with what comes out; without, arrays are not
    copied."""
    for value in (X, torch.as_tensor(X)):
        assert not np.shares_memory(real_array(value, "'x'", copy=True), X)
    assert real_array(X, "'x'") is X


def test_complex_files_are_refused(made, tmp_path):
    """Files of fit_disk and of observations with complex numbers are named."""
    np.savez(tmp_path / "a.npz", theta=X, x=X + 1j)
    with pytest.raises(DataError, match=r"real numbers in variable 'x' of .*a\.npz, got complex128.*load_fn"):
        made.fit_disk(tmp_path, "*.npz", epochs=1)


@pytest.mark.parametrize("workflow", [bf.BasicWorkflow, bf.EnsembleWorkflow])
def test_an_empty_adapter_is_refused(workflow):
    """An adapter whose change was thrown away is an error with the cure; one with a step is taken."""
    adapter = bf.Adapter()
    adapter.constrain("theta", lower=0)
    arguments = {"inference_variables": "theta", "inference_conditions": "x"}
    if workflow is bf.EnsembleWorkflow:
        arguments |= {"inference_networks": "coupling_flow", "ensemble_size": 2}
    with pytest.raises(
        bf.errors.ConfigurationError, match=r"got an empty one.*adapter = adapter\.constrain\(\.\.\.\)"
    ):
        workflow(adapter=adapter, **arguments)
    workflow(adapter=adapter.constrain("theta", lower=0), **arguments)
