"""An ensemble in the pipeline: one model, a child run for each member, able to go on after a kill, and used
again."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pipeline_runs import Finished, kill_in_training, run_pipelines
from small_run import ENSEMBLE, small_experiment

from sbi_models import seeding
from sbi_models.approximators import load_approximator
from sbi_models.datasets import SimulationStore
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.steps.train import train_workflow
from sbi_models.pipeline.studies.michelson import STUDY
from sbi_models.tracking import Tracker, list_models, load, open_store

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.xdist_group("flows-ensemble"),
]  # they share runs

MEMBERS = ("flow", "coupling")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    """A pipeline whose training was killed, run again; then one that differs in a setting of diagnosis
    only."""
    # seconds: two trainings, and fifteen figures of mixture and members in each run
    root = tmp_path_factory.mktemp("ensemble")
    kill_in_training(root, ENSEMBLE, script="small_training.py")
    return run_pipelines(root, ENSEMBLE, ENSEMBLE | {"diagnose": {"num_samples": 40}}, shared=True)


def _stored(finished: Finished, purpose: str) -> dict[str, np.ndarray]:
    return SimulationStore.open(finished.result["simulations"]["stores"][purpose]).load()


def _run_and_children(finished: Finished) -> tuple:
    store, run_id = open_store(finished.root), finished.result["run_id"]
    below = store.client.search_runs(
        [store.experiment("michelson")], filter_string=f"tags.`mlflow.parentRunId` = '{run_id}'"
    )
    assert sorted(child.info.run_name for child in below) == sorted(MEMBERS)
    return store.client.get_run(run_id), {child.info.run_name: child for child in below}


@pytest.mark.parametrize("which", [0, 1])
def test_each_member_has_one_child_run_with_its_own_results(runs: list[Finished], which: int) -> None:
    """After a kill, and where the training is used again, a run has one finished child a member: curve, best
    epoch, weight, metrics."""
    store, history = open_store(runs[which].root), runs[which].result["training"]["history"]
    run, children = _run_and_children(runs[which])
    assert len(store.client.search_runs([store.experiment("michelson")])) == 2 * (1 + len(MEMBERS))
    for name, child in children.items():
        assert child.info.status == "FINISHED"
        for kind in ("loss", "val_loss"):
            points = store.client.get_metric_history(child.info.run_id, kind)
            assert [(point.step, point.value) for point in sorted(points, key=lambda point: point.step)] == [
                (epoch + 1, value) for epoch, value in enumerate(history[f"{name}/{kind}"])
            ]
        assert child.data.metrics["best_epoch"] == 1 + np.argmin(history[f"{name}/val_loss"])
        assert child.data.metrics["weight"] == run.data.metrics[f"weight.{name}"]
        assert {
            "nrmse.mu",
            "log_gamma.log_variance",
            "calibration_error.mu",
            "posterior_contraction.mu",
        } <= set(child.data.metrics)
        assert (
            child.data.params["inference_network.name"]
            == {"flow": "flow_matching", "coupling": "coupling_flow"}[name]
        )
        assert child.data.params["summary_network.name"] == "deep_set"
        member = load_approximator(runs[which].result["training"]["model"]).members[name]
        assert child.data.metrics["num_parameters"] == sum(
            parameter.numel() for parameter in member.parameters()
        )
        tracked = json.loads(
            (Tracker.attach(store, child.info.run_id).artifact_path / "architecture.json").read_text()
        )
        assert tracked == json.loads(member.architecture)
        figures = {Path(file.path).stem for file in store.client.list_artifacts(child.info.run_id, "figures")}
        assert figures == {
            "losses",
            "recovery",
            "calibration_ecdf",
            "coverage",
            "z_score_contraction",
            "verdict",
        }
    assert run.data.metrics["loss"] == history["loss"][-1]
    assert not [name for name in run.data.metrics if "/" in name and not name.startswith("system/")]


def test_weights_are_those_of_the_validation_simulations(runs: list[Finished]) -> None:
    """The weights sum to one, are those that stacking on the validation simulations gives, and are the same
    in the run and in the file."""
    run, _ = _run_and_children(runs[0])
    tracked = {name: run.data.metrics[f"weight.{name}"] for name in MEMBERS}
    assert sum(tracked.values()) == pytest.approx(1.0, abs=1e-12)
    model = load_approximator(runs[0].result["training"]["model"])
    assert model.weights == tracked
    assert model.stack(_stored(runs[0], "validation")) == pytest.approx(tracked, abs=1e-9)
    assert tracked["flow"] != tracked["coupling"]


def test_log_scores_are_those_of_the_test_simulations(runs: list[Finished]) -> None:
    """The scores of mixture and members are their mean log densities of the test simulations; the mixture
    beats the members' average."""
    run, children = _run_and_children(runs[0])
    model, test = load_approximator(runs[0].result["training"]["model"]), _stored(runs[0], "test")
    assert run.data.metrics["log_score"] == pytest.approx(model.log_prob(test).mean(), abs=1e-5)
    of_members = {name: values.mean() for name, values in model.log_prob(test, merge_members=False).items()}
    assert {name: child.data.metrics["log_score"] for name, child in children.items()} == pytest.approx(
        of_members, abs=1e-5
    )
    assert run.data.metrics["log_score"] > sum(
        model.weights[name] * score for name, score in of_members.items()
    )


def test_disagreement_on_the_real_data_is_tracked(runs: list[Finished]) -> None:
    """The table has a number for each experiment, from 0 to the entropy of the weights, beside the test
    simulations; with a figure."""
    artifacts = Path(runs[0].result["artifacts"])
    table = pd.read_csv(artifacts / "metrics" / "disagreement.csv")
    run, _ = _run_and_children(runs[0])
    weights = np.array([run.data.metrics[f"weight.{name}"] for name in MEMBERS])
    assert list(table["experiment"]) == [1, 2, 3, 4, 5]
    assert table["jensen_shannon"].between(0.0, -(weights * np.log(weights)).sum()).all()
    assert run.data.metrics["disagreement.observed.largest"] == pytest.approx(table["jensen_shannon"].max())
    order = table.sort_values("jensen_shannon")
    assert order["share of test simulations above"].is_monotonic_decreasing
    assert (
        0
        < run.data.metrics["disagreement.simulated.median"]
        < run.data.metrics["disagreement.simulated.95_percent"]
    )
    assert (artifacts / "figures" / "disagreement.png").is_file()


def test_the_registered_ensemble_gives_the_draws_of_the_run(runs: list[Finished]) -> None:
    """The ensemble is one version of one model, which gives the mixture's draws of the pipeline to the
    bit."""
    store = open_store(runs[0].root)
    (listing,) = list_models(store)
    assert (listing.name, listing.versions, listing.aliases) == (
        "michelson-ensemble",
        (1,),
        {"challenger": 1, "champion": 1},
    )
    drawn = load("models:/michelson-ensemble@champion", store, certify=False).sample(
        num_samples=200, conditions=STUDY.observations()[1], seed=seeding.derive(1, "infer")
    )
    for finished in runs:
        tracked = pd.read_parquet(Path(finished.result["artifacts"]) / "inference" / "draws.parquet")
        np.testing.assert_array_equal(
            tracked[["mu", "log_variance"]].to_numpy().reshape(5, 200, 2), drawn["theta"]
        )


def test_a_killed_training_ends_with_the_same_ensemble(
    runs: list[Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the training that was killed is, to the bit, that of one that was not."""
    monkeypatch.chdir(tmp_path)
    result = runs[0].result
    data = {purpose: _stored(runs[0], purpose) for purpose in ("training", "validation")}
    whole = train_workflow(
        question_of(small_experiment(ENSEMBLE)), data, result["training"]["key"], lambda epoch, losses: None
    )
    assert Path(whole.model).is_relative_to(tmp_path)
    assert (
        whole.sha256
        == result["training"]["sha256"]
        == hashlib.sha256(Path(whole.model).read_bytes()).hexdigest()
    )
    content = whole.model_dump()
    assert {name: content[name] for name in ("history", "members")} == {
        name: result["training"][name] for name in ("history", "members")
    }


def test_a_setting_of_diagnosis_does_not_train_again(runs: list[Finished]) -> None:
    """With another number of draws the finished training is used again, by its content, and registered
    once."""
    first, second = (finished.result for finished in runs)
    assert second["training"] == first["training"]
    assert second["run_id"] != first["run_id"]
    assert [_run_and_children(finished)[0].data.tags["ensemble"] for finished in runs] == ["made", "reused"]
    assert second["registered"]["reused"]
    assert second["diagnosis"]["diagnostics"] != first["diagnosis"]["diagnostics"]


def test_the_screen_tells_of_the_members(runs: list[Finished]) -> None:
    """The stage of the ensemble has a line for each member with losses, best epoch and weight, and nothing
    else gets in."""
    screen = runs[0].screen
    assert screen.count("[2/5] ensemble") == 2
    for name, member in runs[0].result["training"]["members"].items():
        (line, again) = [line for line in screen.splitlines() if line.split()[:2] == [name, "loss"]]
        assert line == again
        assert line.endswith(f"best epoch {member['best_epoch']}, weight {member['weight']:.3f}")
    assert (
        screen.count("reused, finished") == 1 + 3
    )  # simulations of both runs, training and inference of the second
    assert runs[0].errors == ""
