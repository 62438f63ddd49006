"""Experiments on data sets of any length, from simulations to reports, observations and draws."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pipeline_runs import run_commands
from sets_of_any_length import write_sets

from sbi_models.datasets import SimulationStore, to_arrays
from sbi_models.errors import DataError
from sbi_models.pipeline import folders
from sbi_models.pipeline.cache import observations_hash, simulator_fingerprint
from sbi_models.pipeline.contexts import num_contexts
from sbi_models.pipeline.data_checks import check_data
from sbi_models.pipeline.experiment.observations import read_observations
from sbi_models.pipeline.experiment.question import Question, question_of
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.report.usage import curl_example
from sbi_models.pipeline.steps.simulate import refuse_not_finite, refuse_stale, stores_of
from sbi_models.pipeline.steps.train import workflow_of
from sbi_models.ragged import as_ragged, lengths, same_bits
from sbi_models.tracking.datasets import dataset_input

pytestmark = pytest.mark.xdist_group("flows-any-length")


def question_at(path: Path) -> Question:
    return question_of(load_experiment(path))


@pytest.mark.integration
def test_an_experiment_on_sets_of_any_length_runs_from_end_to_end(tmp_path: Path) -> None:
    """A number of elements that each context draws, from a YAML to draws of the registered model for a CSV
    file, where a data set has the draws that it has alone; a second run uses all again."""
    path = write_sets(tmp_path, "any_length_run", "BY_CONTEXT")
    (tmp_path / "one.csv").write_text("a,1,0.3\na,2,-0.2\n")
    draw = ["models:/any_length_run/1", "--num-samples", "20", "--seed", "3"]
    run, again, three, one = run_commands(
        tmp_path,
        ["run", str(path)],
        ["run", str(path), "--json"],
        ["sample", *draw, "--observations", "sets.csv", "--output", "three_draws.csv", "--json"],
        ["sample", *draw, "--observations", "one.csv", "--output", "one_draws.csv"],
    )
    assert {run.code, again.code} <= {0, 3}, run.errors
    assert (three.code, one.code) == (0, 0), three.errors + one.errors
    summary = json.loads(again.output)
    assert summary["contexts"]["training"] == 6  # the numbers that 64 blocks draw from 1 to 6
    assert 1 < summary["contexts"]["test"] <= 6
    assert "1 024 training (of 6 contexts)" in " ".join((run.output + run.errors).split())
    assert [row["data_set"] for row in summary["certificates"]] == ["a", "b", "c"]
    together, alone = (pd.read_csv(tmp_path / f"{name}_draws.csv") for name in ("three", "one"))
    np.testing.assert_allclose(
        together[together["data_set"] == "a"]["mu"], alone[alone["data_set"] == "a"]["mu"], atol=1e-5
    )
    assert len(alone) == 20
    report = max(tmp_path.rglob("report.html")).read_text()
    assert "training simulations of 6 contexts" in report
    assert "a list of n arrays of shape (N, 1), for any N" in report


@pytest.mark.parametrize("simulator", ["BY_CONTEXT", "BY_ROW"])
@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_observations_of_several_lengths_are_taken(suffix: str, simulator: str, tmp_path: Path) -> None:
    """CSV in long form and npz with offsets bring data sets of 2, 3 and 1 elements, in the order of their
    positions; their hash tells lengths apart."""
    path = write_sets(tmp_path, f"any_length_{suffix}_{simulator}", simulator)
    if suffix == "npz":
        x = as_ragged([np.array(v)[:, None] for v in ([0.3, -0.2], [0.5, 1.5, 0.7], [-1.0])])
        np.savez(tmp_path / "sets.npz", **to_arrays({"x": x}))
        path.write_text(json.dumps(json.loads(path.read_text()) | {"observations": "sets.npz"}))
    question = question_at(path)
    check_data(question, workflow_of(question).approximator)
    labels, observations = question.study.observations()
    assert labels == (["a", "b", "c"] if suffix == "csv" else ["1", "2", "3"])
    assert [part[:, 0].tolist() for part in observations["x"]] == [[0.3, -0.2], [0.5, 1.5, 0.7], [-1.0]]
    assert observations_hash(question) == observations_hash(question)
    assert simulator_fingerprint(question) == simulator_fingerprint(question)


def test_observations_of_another_length_are_refused_where_simulations_have_one(tmp_path: Path) -> None:
    """Where the number of elements never differs, a data set of another is an error before any simulation."""
    path = write_sets(tmp_path, "any_length_fixed", "BY_ROW")
    module = tmp_path / "any_length_fixed.py"
    module.write_text(module.read_text().replace("rng.integers(1, 7)", "3"))
    question = question_at(path)
    with pytest.raises(DataError, match="expected 3 rows in each data set, got 2 in 'a'"):
        check_data(question, workflow_of(question).approximator)


def test_a_network_for_one_length_is_refused_before_simulations(tmp_path: Path) -> None:
    """Data sets of several lengths as direct conditions are refused, with a summary network as the cure."""
    path = write_sets(
        tmp_path, "any_length_direct", "BY_CONTEXT", summary_variables=[], inference_conditions=["x"]
    )
    settings = json.loads(path.read_text())
    del settings["train"]["summary_network"], settings["observations"]
    path.write_text(json.dumps(settings))
    question = question_at(path)
    with pytest.raises(DataError, match="Only what a summary network takes may differ in length"):
        check_data(question, workflow_of(question).approximator)


# ---- simulations -------------------------------------------------------------


@pytest.mark.parametrize("simulator", ["BY_CONTEXT", "BY_ROW"])
def test_stored_simulations_are_compared_with_those_that_the_simulator_makes_now(
    simulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same data sets of any length pass; another number, or another length, does not."""
    monkeypatch.setattr(folders, "_root", tmp_path)
    question = question_at(write_sets(tmp_path, f"any_length_stale_{simulator}", simulator))
    origin = next(store for store in stores_of(question) if store.purpose == "training")
    rows = question.study.simulator.rows(0, 64, seed=origin.seed, progress=False)
    longer = as_ragged([np.concatenate([part, part[:1]]) for part in rows["x"]])
    other = as_ragged([part + 1e-3 for part in rows["x"]])
    for x, fits in ((rows["x"], True), (longer, False), (other, False)):
        SimulationStore.write(origin.folder, 0, 64, rows | {"x": x}, **origin.origin)
        store = SimulationStore.finish(origin.folder, 64, rows_per_shard=64, **origin.origin)
        assert all(map(same_bits, store.load()["x"], x))
        if fits:
            refuse_stale(question)
        else:
            with pytest.raises(DataError, match="another 'x'"):
                refuse_stale(question)
        shutil.rmtree(origin.folder)


def test_simulations_that_are_not_finite_are_refused_with_their_row(tmp_path: Path) -> None:
    """NaN in an element of row 5 names it."""
    question = question_at(write_sets(tmp_path, "any_length_nan", "BY_ROW"))
    rows = question.study.simulator.rows(0, 9, seed=1, progress=False)
    rows["x"][5] = rows["x"][5].copy()
    rows["x"][5][0] = np.nan
    with pytest.raises(Exception, match="row 15 of seed 1"):
        refuse_not_finite(question.experiment, question.study.simulator, rows, 10, 1)


def test_a_store_says_how_many_contexts_it_holds(tmp_path: Path) -> None:
    """Of 40 rows in blocks of 16 there are 3 contexts, of rows with their own as many as differ."""
    number = np.repeat(np.arange(3), 16)[:40, None]
    weights = as_ragged([np.arange(k % 4 + 1.0) for k in range(40)])
    rows = {"number": number, "weights": weights}
    store = SimulationStore.create(
        tmp_path,
        lambda start, stop: {name: value[start:stop] for name, value in rows.items()},
        40,
        seed=1,
        fingerprint="f",
        rows_per_shard=7,
    )
    assert num_contexts(store, ["number"]) == 3
    assert num_contexts(store, ["weights"]) == 4
    assert num_contexts(store, ["number", "weights"]) == 12
    assert num_contexts(store.first(16), ["number"]) == 1


def test_a_run_records_lengths_that_differ() -> None:
    """MLflow's schema has -1, and its page no number, for an axis of any length; sizes count numbers."""
    arrays = {"x": as_ragged([np.zeros((2, 3)), np.zeros((5, 3))]), "mu": np.zeros((2, 1), dtype="f4")}
    dataset = dataset_input("training", "folder", arrays, "a" * 64, "training").dataset
    features = json.loads(dataset.schema)["mlflow_tensorspec"]["features"]
    assert "[-1, -1, 3]" in features
    assert "[-1, 1]" in features
    profile = json.loads(dataset.profile)
    assert profile["features_shape"] == {"x": [2, None, 3], "mu": [2, 1]}
    assert profile["features_size"] == {"x": 21, "mu": 2}
    assert profile["features_nbytes"] == {"x": 168, "mu": 8}


# ---- CSV files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("set,position,x\na,1,0.5\na,2,1.5\nb,1,2.5\n", (None, 1)),
        ("a,2,1.5\nb,1,2.5\na,1,0.5\n", (None, 1)),
        ("set,x\na,0.5\na,1.5\nb,2.5\n", (None, 1)),
        ("a,1,0.5\na,2,1.5\nb,1,2.5\n", (2, 1)),
        ("a,0.5\na,1.5\nb,2.5\n", (2, 1)),
    ],
    ids=["positions", "out of order", "no positions", "as one simulation has", "with two columns"],
)
def test_long_files_bring_data_sets_of_any_length(
    text: str, shape: tuple[int | None, int], tmp_path: Path
) -> None:
    """With or without positions and header, data set a is 0.5, 1.5 and b is 2.5."""
    (tmp_path / "x.csv").write_text(text)
    labels, values = read_observations(tmp_path / "x.csv", "x", shape, any_length=lambda: True)
    assert labels == ["a", "b"]
    assert [part[:, 0].tolist() for part in values] == [[0.5, 1.5], [2.5]]


def test_vectors_of_any_number_and_gaps_are_read(tmp_path: Path) -> None:
    """Elements of two numbers, one of them missing; data sets of one length are an array."""
    (tmp_path / "x.csv").write_text("a,1,0.5,7\na,2,NA,8\nb,1,2.5,9\n")
    _, values = read_observations(tmp_path / "x.csv", "x", (None, 2), may_miss=True)
    assert lengths(values).tolist() == [2, 1]
    np.testing.assert_array_equal(values[0], [[0.5, 7], [np.nan, 8]])
    (tmp_path / "x.csv").write_text("a,1,0.5,7\nb,1,2.5,9\n")
    assert read_observations(tmp_path / "x.csv", "x", (None, 2))[1].shape == (2, 1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5\n1.5\n", r"3 columns .* or 2 columns .* 'x' of shape \(N, 1\), got 1 column. Say in the first"),
        ("a,1,0.5\na,1,1.5\n", "each position once in a data set, got one twice in 'a'"),
        ("a,1,0.5\na,first,1.5\n", "line 2: expected finite numbers, got 'first'"),
        ("a,1,0.5\nb,,\n", "line 2: expected a position and values, got none of 'b'"),
        ("a,1,0.5\nb,1,\n", "line 2: expected finite numbers, got ''"),
        ("a,1,0.5\nb,1\n", "got rows of 2 and 3 columns"),
        ("a,0.5\nb,1.5\na,2.5\n", "line 3: expected the rows of a data set one after the other.*'a' again"),
        ("a,1,2,3,4\n", "got 5 columns"),
    ],
    ids=["no data set", "twice", "words", "no elements", "empty", "widths", "apart", "wide"],
)
def test_long_files_that_cannot_be_read_are_refused(text: str, message: str, tmp_path: Path) -> None:
    """No column of data sets, repeated positions, a set without rows and unequal widths are errors."""
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_observations(tmp_path / "x.csv", "x", (None, 1))


def test_groups_of_elements_are_not_read_from_csv(tmp_path: Path) -> None:
    """They need files with two levels of offsets."""
    with pytest.raises(DataError, match=r"groups of elements for 'x'.*to_arrays"):
        read_observations(tmp_path / "x.csv", "x", (None, None, 1))


def test_examples_of_requests_have_a_length() -> None:
    """A data set of any length is shown with two elements, and a large one by its letters."""
    assert '"inputs": [[[0.0], [0.0]]]' in curl_example("localhost", 1, {"x": (None, 1)})
    assert '{"x": (n, N, 500)}' in re.sub(r"\s+", " ", curl_example("localhost", 1, {"x": (None, 500)}))
