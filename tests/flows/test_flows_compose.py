"""Composition in the pipeline: one posterior given all real data sets, tracked beside the exact one, from the
registered model."""

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pipeline_runs import Finished, run_pipelines
from small_run import COMPOSED, small_experiment

from sbi_models import seeding
from sbi_models.approximators import CompositionalApproximator
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.errors import TrustWarning
from sbi_models.pipeline.experiment.known_prior import prior_of
from sbi_models.pipeline.steps.compose import report_metrics
from sbi_models.pipeline.studies.michelson import STUDY
from sbi_models.simulators.benchmarks import michelson
from sbi_models.tracking import load, open_store
from sbi_models.workflows import CompositionalWorkflow

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.xdist_group("flows-compose"),
]  # they share runs

WITHOUT = {"num_samples": 200, "calibration_simulations": 0}
"""Settings of a composition without a calibration."""

BESIDE = {
    "num_samples": 200,
    "likelihood": {
        "network": {
            "name": "autoregressive_mixture",
            "arguments": {"components": 1, "trunk_width": 0, "head_width": 16},
        },
        "simulations": 1000,
        "epochs": 10,
        "batch_size": 256,
    },
}
"""Settings of a composition beside a learned likelihood."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    """A pipeline that composes, and two with other settings of the composition only."""
    changed = [COMPOSED | {"compose": settings} for settings in (WITHOUT, BESIDE)]
    return run_pipelines(tmp_path_factory.mktemp("composed"), COMPOSED, *changed, shared=True)


def _artifacts(finished: Finished) -> Path:
    return Path(finished.result["artifacts"]) / "composition"


def _tracked(finished: Finished) -> tuple:
    data = open_store(finished.root).client.get_run(finished.result["run_id"]).data
    return data.metrics, data.tags


def test_the_draws_are_those_of_the_registered_model(runs: list[Finished]) -> None:
    """The file holds what the registered model composes of all five experiments, with the prior and simulator
    of the study."""
    file = _artifacts(runs[0]) / "draws.parquet"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == runs[0].result["composition"]["draws_sha256"]
    draws = pd.read_parquet(file)
    assert list(draws.columns) == ["data_set", "draw", "mu", "log_variance"]
    assert draws["data_set"].unique().tolist() == ["all 5"]
    model = load(runs[0].result["registered"]["uri"], open_store(runs[0].root))
    assert isinstance(model, CompositionalApproximator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrustWarning)
        again = CompositionalWorkflow(STUDY.simulator, inference_network=model).compositional_sample(
            num_samples=300,
            conditions={"x": STUDY.observations()[1]["x"].reshape(1, 5, 20, 1)},
            compute_prior_score=STUDY.prior_score,
            seed=seeding.derive(small_experiment(COMPOSED).seed, "compose"),
        )
    np.testing.assert_allclose(draws[["mu", "log_variance"]], again["theta"][0], rtol=1e-6)


def test_the_table_has_the_exact_posterior_of_all_measurements(runs: list[Finished]) -> None:
    """One row a quantity: moments of the draws, of the exact posterior given 100 measurements, and the
    errors, which are metrics too."""
    table = pd.read_csv(_artifacts(runs[0]) / "posterior.csv")
    assert table["experiment"].tolist() == ["all 5", "all 5"]
    draws = pd.read_parquet(_artifacts(runs[0]) / "draws.parquet")
    exact = michelson.MODEL.posterior(pd.read_csv(michelson.DATA)["speed"])
    speed = table.iloc[0]
    assert speed["quantity"] == "speed of light"
    assert speed["mean"] == pytest.approx(draws["mu"].mean() + michelson.SPEED_OFFSET, rel=1e-9)
    assert speed["exact mean"] == pytest.approx(exact.mean[0] + michelson.SPEED_OFFSET, rel=1e-9)
    assert speed["exact sd"] == pytest.approx(exact.sd[0], rel=1e-6)
    assert speed["error/sd"] == pytest.approx((draws["mu"].mean() - exact.mean[0]) / exact.sd[0], abs=1e-6)
    spread = table.iloc[1]
    assert (spread["exact mean"], spread["exact sd"]) == pytest.approx(exact.spread, rel=1e-6)
    metrics, _ = _tracked(runs[0])
    for row in (speed, spread):
        name = row["quantity"].replace(" ", "_")
        assert metrics[f"compose.{name}.error_of_mean_in_sd"] == pytest.approx(row["error/sd"], abs=1e-9)
        assert metrics[f"compose.{name}.sd_ratio"] == pytest.approx(row["sd ratio"], abs=1e-9)


def test_the_report_is_tracked_as_json_and_metrics(runs: list[Finished]) -> None:
    """The report is an artifact, its numbers are metrics; a figure stands beside it."""
    report = json.loads((_artifacts(runs[0]) / "report.json").read_text())
    assert report == runs[0].result["composition"]["report"]
    assert (report["method"], report["num_items"], report["calibrated"]) == ("calibrated", 5, True)
    metrics, tags = _tracked(runs[0])
    for name in (
        "sbc_p_value",
        "sbc_shift",
        "sbc_variance",
        "explained",
        "num_modes",
        "evaluations",
        "simulations",
    ):
        assert metrics[f"compose.{name}"] == report[name]
    assert metrics["compose.seconds"] > 0
    assert (Path(runs[0].result["artifacts"]) / "figures" / "composed.png").stat().st_size > 10_000
    assert "given all of them together" in tags["mlflow.note.content"]
    assert "all 5" in tags["mlflow.note.content"]


def test_warnings_of_a_composition_are_shown_and_tagged(runs: list[Finished]) -> None:
    """Without the simulator a network that has hardly been trained is doubted: on the screen and in the tag,
    not as a bare warning."""
    assert runs[1].result["composition"]["report"]["warnings"]
    for run in runs:
        told = run.result["composition"]["report"]["warnings"]
        assert _tracked(run)[1]["compose.warnings"] == (" ".join(told) or "none")
        for warning in told:
            assert warning in run.screen
        assert run.errors == ""


def test_settings_of_the_composition_do_not_retrain(runs: list[Finished]) -> None:
    """Fewer draws and no calibration leave training and model as they were; the settings do what they say."""
    assert runs[1].result["run_id"] != runs[0].result["run_id"]
    assert runs[1].result["training"] == runs[0].result["training"]
    assert runs[1].result["registered"]["version"] == 1
    # all but the composition of the second run, and all but likelihood and composition of the third
    assert runs[1].screen.count("reused, finished") == 8
    assert runs[1].result["inference"]["draws_sha256"] == runs[0].result["inference"]["draws_sha256"]
    report = runs[1].result["composition"]["report"]
    assert report["simulations"] == 0 < runs[0].result["composition"]["report"]["simulations"]
    assert len(pd.read_parquet(_artifacts(runs[1]) / "draws.parquet")) == 200


def test_the_screen_tells_the_composition(runs: list[Finished]) -> None:
    """The stage is the sixth of six, the table of each quantity ends with all data sets together."""
    screen = runs[0].screen
    assert screen.count("[6/6] compose") == 2
    assert screen.count("[2/6] train") == 2
    assert screen.count("\nall 5 ") == 6  # a row of two quantities in three runs


def test_a_learned_likelihood_beside_the_composition(runs: list[Finished]) -> None:
    """A step and a file of its own; the draws are those of the answer that the report, the tag, the screen
    and the page name; both answers are in the report."""
    report, artifacts = runs[2].result["composition"]["report"], _artifacts(runs[2])
    metrics, tags = _tracked(runs[2])
    assert report["returned"] in ("likelihood", "composition")
    assert tags["compose.returned"] == report["returned"]
    assert metrics["compose.likelihood_p_value"] == report["likelihood_p_value"]
    assert metrics["compose.difference"] == report["difference"]
    draws = pd.read_parquet(artifacts / "draws.parquet")[["mu", "log_variance"]]
    own = "likelihood" if report["returned"] == "likelihood" else "composed"
    np.testing.assert_allclose(draws.mean(), report[f"{own}_mean"]["theta"], rtol=0.02)
    learned = load(str(artifacts / "likelihood.safetensors"))
    assert learned.kind == "likelihood"
    assert metrics["likelihood.val_loss"] > 0
    assert "[6/7] likelihood" in runs[2].screen
    assert "[7/7] compose" in runs[2].screen
    answer = {"likelihood": "that of the learned likelihood", "composition": "the composed one"}
    assert answer[report["returned"]] in runs[2].screen
    page = (Path(runs[2].result["artifacts"]) / runs[2].result["report"]).read_text()
    assert answer[report["returned"]] in page
    assert "<dt>chains</dt>" in page


def test_numbers_that_a_method_does_not_have_are_left_out() -> None:
    """NaN is null in JSON, which has no NaN, and no metric."""
    report = CompositionReport(method="gauss", num_items=5, evaluations=200)
    content = report.as_dict()
    assert json.loads(json.dumps(content, allow_nan=False))["sbc_p_value"] is None
    assert (content["bias_shift"], content["evaluations"]) == (None, 200)
    assert report_metrics(report) == {
        "compose.num_modes": 1.0,
        "compose.evaluations": 200.0,
        "compose.simulations": 0.0,
    }


def test_the_prior_score_is_the_slope_of_the_prior() -> None:
    """For Michelson's study it is that of the normal prior by finite differences of its log density."""
    theta = np.array([[800.0, 9.0], [1010.0, 7.5]])

    def log_density(theta: np.ndarray) -> np.ndarray:
        return -(((theta[:, 0] - 800.0) / 100.0) ** 2 + (theta[:, 1] - 2 * np.log(100.0)) ** 2) / 2

    slopes = [
        (log_density(theta + step) - log_density(theta - step)) / (2 * step.sum())
        for step in np.diag([1e-2, 1e-4])
    ]
    np.testing.assert_allclose(
        STUDY.prior_score({"theta": theta})["theta"], np.stack(slopes, axis=-1), rtol=1e-6
    )
    assert prior_of(STUDY, ("theta",)) == STUDY.prior_score
