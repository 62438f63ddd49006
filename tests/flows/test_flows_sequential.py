"""Experiments that narrow their prior to one observation and weight their draws, and the two real cases."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from linear_experiment import write_experiment
from pipeline_runs import run_pipelines
from pydantic import ValidationError
from scipy.stats import kstest, norm

from sbi_models.cli.sample import sample_file
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows.monitor import monitor
from sbi_models.pipeline.flows.run_start import start_run
from sbi_models.pipeline.steps import sequential as rounds
from sbi_models.pipeline.steps.sequential import round_of
from sbi_models.pipeline.studies.hare_lynx import MODEL, PELTS
from sbi_models.pipeline.studies.influenza import STUDY as INFLUENZA
from sbi_models.pipeline.studies.influenza import exact_draws
from sbi_models.simulators import SimulatorWithProposal

pytestmark = [pytest.mark.acceptance, pytest.mark.xdist_group("flows-sequential")]  # whose pipelines run once

MODULE = """
import numpy as np
from sbi_models import make_simulator

class Model:
    def prior(self, batch_size, rng): return {"theta": rng.normal(size=(batch_size, 2))}
    def likelihood(self, theta, rng): return {"x": theta + 0.1 * rng.normal(size=theta.shape)}
    def log_joint(self, theta, x): return -0.5 * (theta**2).sum(axis=1) - 50 * ((x - theta) ** 2).sum(axis=1)

MODEL = Model()
SIMULATOR = make_simulator([MODEL.prior, MODEL.likelihood], is_batched=True)
"""
X = np.array([[1.5, -0.7]])
SD = np.sqrt(1 / 101)
NETWORK = {
    "name": "autoregressive_mixture",
    "arguments": {"components": 2, "trunk_width": 0, "head_width": 16},
}
NARROW: dict[str, Any] = {
    "sequential": {"training": 1024, "validation": 128},
    "simulate": {"training": 1024, "validation": 128, "test": 40},
    "train": {"inference_network": NETWORK, "epochs": 8, "batch_size": 64, "initial_learning_rate": 5e-3},
    "infer": {"num_samples": 2000, "num_proposals": 10_000, "predictive_replicates": 0},
    "gate": {"calibrated": False},
}


def write(folder: Path, module: str, x: np.ndarray | None = X, **changes: Any) -> Path:
    """An experiment of the model above."""
    path = write_experiment(folder, module, x, **(NARROW | changes))
    (folder / f"{module}.py").write_text(MODULE)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The same pipeline twice."""
    root = tmp_path_factory.mktemp("narrow")
    path = str(write(root, "narrow_module"))
    return run_pipelines(root, {"file": path}, {"file": path}, shared=True)


def test_the_draws_are_those_of_the_exact_posterior_under_the_wide_prior(runs: list[Any]) -> None:
    """N(100 x / 101, 1 / 101): each component passes a Kolmogorov-Smirnov test of the draws they are worth;
    the evidence is right."""
    found = runs[0]
    draws = pd.read_parquet(Path(found.result["artifacts"]) / "inference" / "draws.parquet")
    assert len(draws) == 2000
    (correction,) = found.result["inference"]["corrections"]
    assert not correction["warnings"]
    for name, mean in zip(("theta_0", "theta_1"), X[0] * 100 / 101, strict=True):
        distance = kstest(draws[name], norm(mean, SD).cdf).statistic
        assert distance < 1.63 / np.sqrt(min(2000, correction["effective_draws"]) / 2)
    # log of the integral of exp(-theta^2 / 2 - 50 (x - theta)^2) in two dimensions
    exact = float((np.log(2 * np.pi / 101) / 2 - 50 / 101 * X[0] ** 2).sum())
    assert correction["log_evidence"] == pytest.approx(exact, abs=0.1)


def test_the_rounds_are_said_tracked_and_used_again(runs: list[Any]) -> None:
    """The screen tells the next prior; the round is a child run with its prior; a second pipeline makes
    nothing anew."""
    first, second = runs
    assert "[1/6] sequential" in first.screen
    assert "round 1: 1 172 simulations" in first.screen
    assert "Corrected 1" in first.screen
    assert second.result["simulations"]["made"] == 0
    assert second.result["training"]["sha256"] == first.result["training"]["sha256"]
    artifacts = Path(first.result["artifacts"])
    corrections = json.loads((artifacts / "inference" / "corrections.json").read_text())
    assert corrections[0]["data_set"] == "1"
    priors = [json.loads(path.read_text()) for path in artifacts.parents[1].rglob("prior.json")]
    assert len(priors) == 2, "one of each run"
    assert priors[0] == priors[1]
    assert priors[0]["widths"] == {"theta": 2}
    np.testing.assert_allclose(np.sqrt(np.diag(priors[0]["covariance"])), 3 * SD, rtol=0.5)


def test_whoever_samples_the_model_is_told_that_draws_want_weights(
    runs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The file knows its prior; the command says so; the pipeline does not offer that command."""
    model, folder = runs[0].result["training"]["model"], runs[0].root
    np.savetxt(folder / "x.csv", X, delimiter=",")
    sample_file(
        model, folder / "x.csv", num_samples=100, seed=1, output=folder / "draws.csv", certificate=False
    )
    assert "under a narrower prior" in capsys.readouterr().err
    assert "sbi-models sample" not in runs[0].screen
    assert "corrected" in runs[0].screen


def test_a_round_has_the_widening_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proposal is as many sds wide as the settings say, around the posterior of the real observation by
    the model of the round before."""
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, "narrow_wide", sequential=NARROW["sequential"] | {"widening": 7.0})
    draws = X + np.array([0.1, 2.0]) * np.random.default_rng(1).normal(size=(1, 10_000, 2))
    asked: list[Any] = []

    def sample(**options: Any) -> dict[str, np.ndarray]:
        asked.append(options["conditions"]["x"])
        return {"theta": draws[:, : options["num_samples"]]}

    model = SimpleNamespace(
        sample=sample,
        inference_names=("theta",),
        condition_names=("x",),
        may_miss=frozenset(),
        shapes={"theta": (2,)},
        is_built=False,
    )
    monkeypatch.setattr(rounds, "load_approximator", lambda file: model)
    found = rounds.sequential.fn(question_of(load_experiment(path)), SimpleNamespace(model="file"))
    np.testing.assert_allclose(np.sqrt(np.diag(found.prior["covariance"])), [0.7, 14.0], rtol=0.05)
    np.testing.assert_allclose(found.prior["mean"], X[0], atol=0.2)
    np.testing.assert_array_equal(asked, [X])


def test_an_experiment_that_has_its_prior_has_a_narrow_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its simulations are those of the narrow prior; rounds have seeds and numbers of their own."""
    monkeypatch.syspath_prepend(tmp_path)
    experiment = load_experiment(write(tmp_path, "narrow_study"))
    early = round_of(experiment, 0)
    assert (early.simulate.training, early.simulate.validation) == (1024, 128)
    assert early.seed != experiment.seed != round_of(experiment, 1).seed
    content = {
        "widths": {"theta": 2},
        "mean": [5.0, 5.0],
        "covariance": [[0.01, 0.0], [0.0, 0.01]],
        "lower": [None] * 2,
        "upper": [None] * 2,
    }
    question = question_of(experiment)
    near = question.with_proposal(content)
    assert isinstance(near.study.simulator, SimulatorWithProposal)
    np.testing.assert_allclose(near.study.simulator.sample(100, seed=1)["theta"].mean(axis=0), 5.0, atol=0.05)
    assert not isinstance(question.study.simulator, SimulatorWithProposal)
    there = pickle.loads(pickle.dumps(near))
    assert (there.experiment, there.proposal) == (near.experiment, near.proposal)
    for name, values in near.study.simulator.sample(5, seed=1).items():
        np.testing.assert_array_equal(there.study.simulator.sample(5, seed=1)[name], values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"infer": {"num_samples": 100}}, "infer.num_proposals with sequential"),
        ({"infer": {"num_samples": 100, "num_proposals": 50}}, "at least infer.num_samples, 100, got 50"),
        ({"compose": {}}, "either sequential or compose"),
        ({"sequential": {"widening": 1.0}}, "greater than 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Before anything is imported."""
    with pytest.raises((ConfigurationError, ValidationError), match=message):
        load_experiment(write(tmp_path, "narrow_bad", **changes))


def test_one_observation_a_likelihood_and_no_prior_are_asked_for_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two observations; weights without a likelihood; and a monitoring are errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="one real data set with sequential, got 2"):
        start_run(question_of(load_experiment(write(tmp_path / "two", "narrow_two", np.concatenate([X, X])))))
    plain = write_experiment(
        tmp_path / "plain", "narrow_plain", X, infer={"num_samples": 10, "num_proposals": 20}
    )
    with pytest.raises(ConfigurationError, match=r"a likelihood with infer\.num_proposals"):
        start_run(question_of(load_experiment(plain)))
    for module, changes, message in (
        (
            "narrow_names",
            {"inference_conditions": ["x"], "inference_variables": ["theta"], "log_joint": "theta, y"},
            "takes some of theta, x",
        ),
        ("narrow_density", {"train": {"inference_network": {"name": "consistency_model"}}}, "with a density"),
    ):
        path = write(
            tmp_path / module,
            module,
            **{name: value for name, value in changes.items() if name != "log_joint"},
        )
        text = (tmp_path / module / f"{module}.py").read_text()
        (tmp_path / module / f"{module}.py").write_text(
            text.replace("theta, x):", changes.get("log_joint", "theta, x") + "):")
        )
        with pytest.raises(ConfigurationError, match=message):
            start_run(question_of(load_experiment(path)))
    experiment = load_experiment(write(tmp_path / "given", "narrow_given"))
    with pytest.raises(ConfigurationError, match="without sequential to monitor"):
        monitor.fn(experiment)
    assert not list(tmp_path.rglob("mlflow.db")), "no run was started"


@pytest.mark.nightly
def test_the_exact_posterior_of_the_influenza_is_the_published_one() -> None:
    """beta 1.73 (0.05), gamma 0.54 (0.05), R0 3.2 (0.3), Grinsztajn et al. 2021, to the digits that they
    give."""
    (row,) = INFLUENZA.references(INFLUENZA.observations()[1])
    beta, gamma, ratio, _ = row
    assert (round(beta.mean, 1), round(beta.sd, 2)) == (1.7, 0.05)
    assert beta.mean == pytest.approx(1.73, abs=0.01)
    assert gamma.mean == pytest.approx(0.54, abs=0.01)
    assert gamma.sd == pytest.approx(0.05, abs=0.006)
    assert ratio.mean == pytest.approx(3.2, abs=0.05)
    assert ratio.sd == pytest.approx(0.3, abs=0.05)
    assert len(exact_draws(tuple(INFLUENZA.observations()[1]["x"][0]))) == 10_000


def test_the_flat_pelts_are_those_of_the_benchmark() -> None:
    """The same draws, and the same joint density, of 42 numbers in place of 21 by 2."""
    rng = np.random.default_rng(0)
    theta = MODEL.prior(5, rng)["theta"]
    pelts = PELTS.likelihood(theta, np.random.default_rng(1))["pelts"]
    x = MODEL.likelihood(theta, np.random.default_rng(1))["x"]
    np.testing.assert_array_equal(pelts, x.reshape(5, 42))
    np.testing.assert_allclose(PELTS.log_joint(theta, pelts), MODEL.log_joint(theta, x))
