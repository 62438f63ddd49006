"""The champion under watch: the p-value of all observations, the verdict on fresh simulations, and what an
alarm does."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_experiment import usual, write_experiment
from pipeline_runs import Ended, run_commands
from scipy import stats

from sbi_models import BasicWorkflow, diagnostics
from sbi_models.approximators import Approximator
from sbi_models.networks import CouplingFlow
from sbi_models.pipeline.experiment.question import question_of, study_of
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows import monitor as monitoring
from sbi_models.pipeline.flows.monitor import drift_p_value, watch, watches
from sbi_models.tracking import open_store

pytestmark = pytest.mark.xdist_group("flows-monitor")  # the tests share runs

# ---- one p-value of many


def test_the_p_value_is_twice_the_smaller_of_fishers_and_tippetts() -> None:
    """For any p-values, SciPy's combinations of them, each counted half."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        p_values = rng.uniform(size=n) ** 2
        both = [stats.combine_pvalues(p_values, method=method).pvalue for method in ("fisher", "tippett")]
        assert drift_p_value(list(p_values)) == pytest.approx(min(1.0, 2 * min(both)), rel=1e-9)


@pytest.mark.parametrize("n", [2, 10])
def test_false_alarms_are_as_rare_as_the_level_says(n: int) -> None:
    """Of uniform p-values, the share below a level is at most the level, and at least half of it, within
    binomial error."""
    rng, repeats = np.random.default_rng(n), 4000
    found = np.array([drift_p_value(list(rng.uniform(size=n))) for _ in range(repeats)])
    for level in (0.01, 0.05, 0.2):
        count = int((found <= level).sum())
        assert stats.binom.sf(count - 1, repeats, level) > 1e-4
        assert stats.binom.cdf(count, repeats, level / 2) > 1e-4


@pytest.mark.parametrize("p_values", [[1e-5, *[0.5] * 20], [0.08] * 20])
def test_one_far_out_and_many_somewhat_out_are_seen(p_values: list[float]) -> None:
    """One tiny p-value among usual ones, and twenty of which none is below 0.05, are far below the level."""
    assert drift_p_value(p_values) < 0.001


def test_usual_p_values_are_no_drift() -> None:
    """P-values spread evenly, and those that are all 1, are above the level; without any there is no
    p-value."""
    assert drift_p_value([(i + 0.5) / 20 for i in range(20)]) > 0.3
    assert drift_p_value([1.0, 1.0]) == 1.0
    assert drift_p_value([]) is None


# ---- the look at one model, in this process


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return load_experiment(write_experiment(tmp_path_factory.mktemp("watched"), "linear_watched", usual()))


@pytest.fixture(scope="module")
def approximator(experiment: Experiment) -> Approximator:
    """Trained for about a second."""
    simulator = study_of(experiment).simulator
    workflow = BasicWorkflow(
        simulator,
        inference_variables="theta",
        inference_conditions="x",
        inference_network=CouplingFlow(transform="affine", depth=2, widths=(16,)),
        initial_learning_rate=5e-3,
        seed=1,
        progress=False,
    )
    workflow.fit_offline(
        simulator.sample(4096, seed=1),
        epochs=8,
        batch_size=256,
        validation_data=simulator.sample(2000, seed=2),
    )
    return workflow.approximator


@pytest.fixture
def watched(
    experiment: Experiment, approximator: Approximator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Look at the approximator as the champion, with other settings or observations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(monitoring, "load", lambda *given, **options: approximator)
    monkeypatch.setattr(monitoring, "open_store", lambda *given, **options: None)

    def watched(
        turn: int = 1, x: np.ndarray | None = None, *, figures: bool = False, **changes: Any
    ) -> dict[str, Any]:
        if not figures:  # they take most of the time
            monkeypatch.setattr(diagnostics, "default_figures", lambda *given, **options: {})
        if x is not None:
            np.savez(Path(experiment.folder) / "other.npz", x=x)
            changes["observations"] = "other.npz"
        question = question_of(experiment.model_copy(update=changes))
        return watch.fn(question, "models:/linear/1", turn).model_dump()

    return watched


@pytest.mark.nightly
def test_a_right_champion_is_left_alone(watched) -> None:
    """Calibrated on fresh simulations, and observations like those: no alarm; figures, table, verdict and
    certificates are written."""
    found = watched(figures=True)
    assert found["verdict"]["is_calibrated"]
    assert found["verdict"]["num_datasets"] == 100
    assert (found["drift"], found["alarms"], found["tags"]["alarms"]) == ("no", [], "none")
    assert found["p_value"] == found["metrics"]["drift.p_value"] > 0.05
    assert {
        "verdict.json",
        "metrics/diagnostics.csv",
        "figures/verdict.png",
        "figures/recovery.png",
        "inference/certificates.json",
    } <= set(found["files"])


# Seconds: three looks with diagnostics and figures each.
def test_every_look_has_simulations_of_its_own(watched) -> None:
    """The same turn again has the same numbers, and the next turn others; the observations are the same."""
    first, again, second = (
        watched(1, observations=None),
        watched(1, observations=None),
        watched(2, observations=None),
    )
    assert first["metrics"] == again["metrics"]
    assert all(
        second["metrics"][name] != value
        for name, value in first["metrics"].items()
        if name.startswith("nrmse")
    )
    assert (first["p_value"], first["drift"]) == (None, "not known")


def test_the_files_of_two_experiments_lie_apart(watched) -> None:
    """At the same turn, what one experiment has found is not written over by another."""
    for name in ("one", "two"):
        found = watched(1, name=name, observations=None)
        verdict = Path(found["folder"]) / "verdict.json"
        assert json.loads(verdict.read_text()) == found["verdict"]
    folders = {Path(watched(1, name=name, observations=None)["folder"]).resolve() for name in ("one", "two")}
    assert len(folders) == 2


def test_observations_far_from_the_simulations_are_an_alarm(watched) -> None:
    """All observations far out, or one of eight, for which 2000 references are enough."""
    one = usual()
    one[3] = 9.0
    for x in (usual() + 8, one):
        found = watched(x=x)
        assert found["verdict"]["is_calibrated"]
        assert found["drift"] == "yes"
        (alarm,) = found["alarms"]
        assert alarm.startswith("The real observations are not like the simulations of the training (p = ")


def test_a_champion_that_is_not_calibrated_is_an_alarm(
    watched, approximator: Approximator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws moved by half a prior sd: the alarm has the sentence of the verdict."""
    right = approximator.sample

    def moved(**options: Any) -> dict[str, np.ndarray]:
        return {name: values + 0.5 for name, values in right(**options).items()}

    monkeypatch.setattr(approximator, "sample", moved)
    found = watched(observations=None)
    assert found["alarms"] == [f"Not calibrated on fresh simulations: {found['verdict']['sentence']}"]
    assert found["tags"]["verdict"] != "calibrated"


# ---- the whole flow


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[Ended]]:
    """No champion yet; a pipeline run; the monitor with usual observations, and with ones far out."""
    source, root = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("project")
    file = str(write_experiment(source, "linear_monitored", usual()))
    far = str(write_experiment(source, "linear_monitored", usual() + 8, file="far"))
    return (
        file,
        root,
        run_commands(root, ["monitor", file], ["run", file], ["monitor", file], ["monitor", far]),
    )


@pytest.mark.integration
def test_exit_codes_and_words(commands: tuple[str, Path, list[Ended]]) -> None:
    """Without a champion 2, all well 0, drift 3 with the reason on standard error and the id of the run."""
    none, run, well, drift = commands[2]
    assert (none.code, none.output) == (2, "")
    assert "linear_monitored" in none.errors or "Nothing was tracked" in none.errors
    assert len(none.errors.strip().splitlines()) == 1
    assert run.code == 0, run.errors
    assert (well.code, well.errors) == (0, "")
    assert "models:/linear_monitored/1: " in well.output
    assert "The real observations are like the simulations of its training" in well.output
    assert (drift.code, drift.output) == (3, "")
    assert drift.errors.startswith(
        "Drift: models:/linear_monitored/1: The real observations are not like the simulations of "
        "the training"
    )
    assert len(drift.errors.strip().splitlines()) == 1


@pytest.mark.integration
def test_every_look_is_a_run(commands: tuple[str, Path, list[Ended]]) -> None:
    """A run each with numbers, files and tags, the one with drift FAILED; the version has the last word on
    it; both count as turns."""
    file, root, ended = commands
    store = open_store(root)
    chosen = "tags.`sbi_models.flow` = 'monitor'"
    runs = store.client.search_runs(
        [store.experiment("linear_monitored")], filter_string=chosen, order_by=["attributes.start_time ASC"]
    )
    assert len(watches(store, load_experiment(file))) == 2
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert [run.data.params["turn"] for run in runs] == ["1", "2"]
    assert [run.data.tags["alarms"] == "none" for run in runs] == [True, False]
    assert runs[1].data.tags["alarms"] in ended[3].errors
    assert re.search(r"run ([0-9a-f]{32})", ended[3].errors)[1] == runs[1].info.run_id
    assert runs[1].data.metrics["drift.p_value"] < 0.01 < runs[0].data.metrics["drift.p_value"]
    assert {run.data.tags["model"] for run in runs} == {"models:/linear_monitored/1"}
    for run in runs:
        assert {"figures", "inference", "metrics", "verdict.json"} <= {
            file.path for file in store.client.list_artifacts(run.info.run_id)
        }
    tags = store.client.get_model_version("linear_monitored", "1").tags
    assert (tags["monitor.verdict"], tags["monitor.drift"]) == ("calibrated", "yes")
