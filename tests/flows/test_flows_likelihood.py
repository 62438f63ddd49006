"""Experiments with a learned likelihood, from simulations to draws of the registered model: against conjugate
posteriors of normal numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from likelihood_experiment import DATA, NOISE, write_likelihood
from pipeline_runs import run_commands
from scipy import stats

import sbi_models as bf
from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.pipeline.data_checks import check_data
from sbi_models.pipeline.experiment.question import Question, question_of
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.learned_likelihood import num_elements
from sbi_models.pipeline.model_comparison import compare
from sbi_models.pipeline.outcomes import Results
from sbi_models.pipeline.steps.diagnose import diagnose_all
from sbi_models.pipeline.steps.infer import infer_observations
from sbi_models.pipeline.steps.train import train_key, train_workflow, workflow_of


def exact(numbers: list[float]) -> tuple[float, float]:
    """Mean and sd of the posterior of mu given normal numbers, prior N(0.5, 1)."""
    precision = 1 + len(numbers) / NOISE**2
    return (0.5 + sum(numbers) / NOISE**2) / precision, precision**-0.5


def question_at(folder: Path, module: str, *arguments: Any, **changes: Any) -> Question:
    return question_of(load_experiment(write_likelihood(folder, module, *arguments, **changes)))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.integration
def test_a_likelihood_runs_from_end_to_end(tmp_path: Path) -> None:
    """From a YAML to draws of the registered model for a CSV file with data sets of 2, 3 and 1 numbers; a
    second run uses all again, and the champion is not replaced by its equal."""
    path = write_likelihood(tmp_path, "likelihood_run")
    model = "models:/likelihood_run@champion"
    run, again, drawn, watched = run_commands(
        tmp_path,
        ["run", str(path)],
        ["run", str(path), "--json"],
        ["sample", model, "--observations", "numbers.csv", "--seed", "3", "--output", "draws.csv", "--json"],
        ["monitor", str(path)],
    )
    assert (run.code, again.code, drawn.code, watched.code) == (0, 0, 0, 0), run.errors + watched.errors
    summary = json.loads(again.output)
    for row, numbers in zip(summary["posteriors"], DATA.values(), strict=True):
        mean, sd = exact(numbers)
        assert abs(row["mean"] - mean) < 0.25 * sd
        np.testing.assert_allclose(row["sd"], sd, rtol=0.15)
    assert [row["data_set"] for row in summary["reports"]] == ["a", "b", "c"]
    assert not any(row["warnings"] for row in summary["reports"])
    assert [row["data_set"] for row in json.loads(drawn.output)["reports"]] == ["a", "b", "c"]
    draws = pd.read_csv(tmp_path / "draws.csv")
    np.testing.assert_allclose(draws.groupby("data_set")["mu"].mean()["b"], exact(DATA["b"])[0], atol=0.15)
    said = " ".join((run.output + run.errors).split())
    assert "Observables" in said
    assert "3 of 3 without doubts" in said
    report = max(tmp_path.rglob("report.html")).read_text()
    assert "Draws from the likelihood and the prior" in report
    assert "bf.LikelihoodWorkflow(network=bf.load(" in report


def test_steps_on_a_trained_likelihood(tmp_path: Path) -> None:
    """Training goes on to the same bits; the diagnosis judges the implied posterior, observables and the
    log score, which is that of the normal density; posteriors of the data are exact, with evidence."""
    # seconds: chains of 23 data sets
    question = question_at(tmp_path, "likelihood_steps")
    data = {
        "training": question.study.simulator.sample(5_000, seed=1),
        "validation": question.study.simulator.sample(500, seed=2),
    }
    training = train_workflow(question, data, "key", lambda epoch, losses: None)
    assert train_workflow(question, data, "key", lambda epoch, losses: None) == training
    approximator, test = load_approximator(training.model), question.study.simulator.sample(200, seed=3)
    diagnosis = diagnose_all(question, approximator, test, training.history, tmp_path / "diagnosis")
    assert set(diagnosis.verdict["parameters"]) == {"mu"}
    assert diagnosis.verdict["num_datasets"] == 20
    assert diagnosis.observables is not None
    assert diagnosis.observables["label"] == "calibrated"
    assert diagnosis.doubtful == 0
    score = stats.norm.logpdf(test["x"], test["mu"], NOISE).mean()
    assert diagnosis.log_score == pytest.approx(score, abs=0.02)
    assert diagnosis.is_intact
    results = Results(tmp_path / "inference")
    inference = infer_observations(question, approximator, results)
    for row, numbers in zip(inference.table, DATA.values(), strict=True):
        mean, sd = exact(numbers)
        assert abs(row["mean"] - mean) < 0.25 * sd
        np.testing.assert_allclose(row["sd"], sd, rtol=0.15)
        evidence = stats.multivariate_normal.logpdf(
            numbers, np.full(len(numbers), 0.5), NOISE**2 * np.eye(len(numbers)) + 1
        )
        key = f"posterior.log_evidence.{row['data set']}"
        assert inference.metrics[key] == pytest.approx(evidence, abs=0.15)
    assert (inference.certificates, inference.metrics["posterior.doubtful"]) == ([], 0.0)
    comparison = compare(approximator, approximator, test, seed=1)
    assert (comparison.word, comparison.num_simulations) == ("equal", 200)


def test_the_verdict_is_on_as_many_elements_as_real_data_have(tmp_path: Path) -> None:
    """The median of 2, 3 and 1; or what the settings say; 1 without real data, and where simulations are
    sets."""
    for likelihood, changes, expected in (
        ({"iid": "elements"}, {}, 2),
        ({"iid": "elements", "elements": 7}, {}, 7),
        ({"iid": "elements"}, {"observations": None}, 1),
        ({"iid": "elements", "elements": 7}, {"observations": None}, 7),
        ({"iid": "sets"}, {}, 1),
    ):
        question = question_at(tmp_path, "likelihood_elements", likelihood=likelihood, **changes)
        assert num_elements(question) == expected


def test_true_is_the_automatic_network(tmp_path: Path) -> None:
    """Also after settings have travelled as JSON; false is none, and a named network stays."""
    experiment = load_experiment(write_likelihood(tmp_path, "likelihood_true", likelihood=True, train=None))
    assert experiment.likelihood is not None
    assert experiment.train.inference_network.name == "auto"
    assert type(experiment).model_validate_json(experiment.model_dump_json()) == experiment
    workflow = workflow_of(question_of(experiment))
    assert isinstance(workflow, bf.LikelihoodWorkflow)
    assert workflow.settings.initial_learning_rate == 2e-3
    named = load_experiment(write_likelihood(tmp_path, "likelihood_named", likelihood=True))
    assert named.train.inference_network.name == "autoregressive_mixture"
    assert load_experiment(write_likelihood(tmp_path, "likelihood_no", likelihood=False)).likelihood is None


def test_sets_and_conditions_are_those_of_the_settings(tmp_path: Path) -> None:
    """Simulations that are sets, and real data of any number of elements."""
    question = question_at(tmp_path, "likelihood_sets", "SETS", likelihood={"iid": "sets"})
    approximator = workflow_of(question).approximator
    check_data(question, approximator)
    labels, observations = question.study.observations()
    assert labels == list(DATA)
    assert [len(value) for value in observations["x"]] == [2, 3, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compose": {}}, "Expected no compose with likelihood"),
        ({"ensemble": {"size": 2}}, "Expected no ensemble with likelihood"),
        ({"summary_variables": ["x"]}, "Expected no summary_variables with likelihood"),
        ({"infer": {"num_samples": 10, "num_proposals": 20}}, "Expected no infer.num_proposals"),
        ({"likelihood": {"conditions": ["y"]}}, "Expected likelihood.conditions among inference_conditions"),
        ({"likelihood": {"conditions": ["x"]}}, "got none beside likelihood.conditions"),
        ({"likelihood": {"iid": "trials"}}, "likelihood"),
        ({"likelihood": 3}, "likelihood"),
        ({"likelihood": {"diagnosed": 5}}, "diagnosed"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_likelihood(tmp_path, "likelihood_refused", **changes)
    with pytest.raises(ConfigurationError, match=message):
        load_experiment(path)


def test_a_prior_without_a_density_is_refused_before_any_simulation(tmp_path: Path) -> None:
    question = question_at(tmp_path, "likelihood_no_density", "NO_DENSITY")
    with pytest.raises(ConfigurationError, match="Expected a prior with a density, got none for 'mu'"):
        check_data(question, workflow_of(question).approximator)


def test_observations_with_gaps_are_refused_before_any_simulation(tmp_path: Path) -> None:
    question = question_at(tmp_path, "likelihood_gaps")
    (tmp_path / "numbers.csv").write_text("set,trial,x\na,1,0.3\na,2,NA\n")
    with pytest.raises(DataError, match=r"numbers\.csv"):
        check_data(question, workflow_of(question).approximator)


def test_keys_depend_on_likelihood_and_prior(tmp_path: Path) -> None:
    """What is diagnosed is no matter of the training."""
    hashes = {"training": "a", "validation": "b"}
    settings = [
        {"iid": "elements"},
        {"iid": "elements", "diagnosed": 30},
        {"iid": "sets"},
        {"iid": None},
        None,
    ]
    keys = [
        train_key(question_at(tmp_path, "likelihood_keys", likelihood=likelihood), hashes)
        for likelihood in settings
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
