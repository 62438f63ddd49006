"""A challenger on more simulations: how many, what of them is computed, and what the gate makes of it."""

from pathlib import Path

import pytest
from linear_experiment import usual, write_experiment
from pipeline_runs import Ended, run_commands
from small_run import small_experiment

from sbi_models.datasets import SimulationStore
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.flows.retrain import with_more
from sbi_models.tracking import FLOW_TAG, RunRecord, Store, Tracker, list_models, open_store

pytestmark = pytest.mark.xdist_group("flows-retrain")  # the tests share runs


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return open_store(tmp_path_factory.mktemp("project"))


@pytest.fixture(autouse=True)
def _in_the_project(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(store.root)


def _had(
    store: Store,
    experiment: Experiment,
    training: int,
    *,
    status: str = "FINISHED",
    flow: str = "pipeline",
    seed: int = 1,
) -> None:
    """A run of so many training simulations."""
    simulate = experiment.simulate.model_copy(update={"training": training})
    params = experiment.model_copy(update={"simulate": simulate, "seed": seed}).model_dump(mode="json")
    tracker = Tracker.start(
        store, experiment.name, "run", f"{status} {flow} {training} {seed}", params, tags={FLOW_TAG: flow}
    )
    tracker.finish(status)


def _wanted(experiment: Experiment) -> int:
    return with_more(experiment).simulate.training


def test_simulations_are_added_to_those_of_the_largest_finished_run(store: Store) -> None:
    """The first time as many as the settings say, then that many or `more` on top of the most that a finished
    pipeline run has had; other seeds, unfinished runs, other flows and parts of runs do not count, and
    nothing else of the settings changes."""
    experiment = small_experiment({"name": "counted", "simulate": {"training": 1000}})
    assert with_more(experiment) == experiment
    _had(store, experiment, 1000)
    assert _wanted(experiment) == 2000
    _had(store, experiment, 2000)
    _had(store, experiment, 1500)
    assert _wanted(experiment) == 3000
    assert _wanted(experiment.model_copy(update={"seed": 2})) == 1000
    _had(store, experiment, 7000, seed=2)
    _had(store, experiment, 8000, status="FAILED")
    _had(store, experiment, 9000, flow="monitor")
    assert _wanted(experiment) == 3000
    more = small_experiment({"name": "counted", "simulate": {"training": 1000}, "retrain": {"more": 50}})
    assert with_more(more) == more.model_copy(
        update={"simulate": more.simulate.model_copy(update={"training": 2050})}
    )


# ---- the whole flow


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    """A pipeline run, and a challenger on twice the simulations."""
    source, root = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("retrained")
    simulate = {"training": 2048, "validation": 512, "test": 100, "rows_per_shard": 1024}
    file = write_experiment(source, "linear_retrained", usual(2), simulate=simulate)
    return root, run_commands(root, ["run", str(file)], ["retrain", str(file)])


@pytest.mark.integration
def test_only_new_simulations_are_computed(commands: tuple[Path, list[Ended]]) -> None:
    """The second run says that the first 2048 training simulations, and all others, were there; the two have
    the same first rows."""
    root, (run, retrain) = commands
    assert (run.code, run.errors, retrain.code, retrain.errors) == (0, "", 0, "")
    assert "2 048 training, 512 validation, 100 test simulations (" in run.output
    assert "4 096 training, 512 validation, 100 test simulations; 2 660 were there" in retrain.output
    stored = SimulationStore.open(next((root / "mlruns" / "work").glob("simulate-*/training")))
    records = RunRecord.ended(open_store(root), "linear_retrained", "pipeline")
    hashes = [record.content_hashes for record in records]
    assert [record.params["simulate.training"] for record in records] == ["4096", "2048"]
    assert [each["training"] for each in hashes] == [stored.content_hash, stored.first(2048).content_hash]
    assert hashes[0]["test"] == hashes[1]["test"]


@pytest.mark.integration
def test_the_challenger_is_judged(commands: tuple[Path, list[Ended]]) -> None:
    """The second version is the challenger; the gate has compared it with the first, and the champion is what
    it said."""
    root, (_, retrain) = commands
    store = open_store(root)
    (model,) = list_models(store)
    tags = store.client.get_model_version("linear_retrained", "2").tags
    assert model.versions == (1, 2)
    assert model.aliases == {"challenger": 2, "champion": 2 if tags["gate"] == "passed" else 1}
    comparison = tags["gate.reason"].partition("; ")[2] if tags["gate"] == "passed" else tags["gate.reason"]
    assert "models:/linear_retrained/1" in comparison
    assert comparison.endswith(" test simulations; the margin is 0.02")
    assert comparison in retrain.output
