"""An experiment with the inference network "auto": the pipeline's training, what it says, and that it goes
on."""

import json
from pathlib import Path

import numpy as np
import pytest
from linear_experiment import write_experiment

from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.question import question_of, study_of
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.report.console import PipelineConsole
from sbi_models.pipeline.run_record import record_training
from sbi_models.pipeline.steps.train import train_workflow, workflow_of
from sbi_models.tracking import Tracker, open_store
from sbi_models.workflows.auto import schedules
from sbi_models.workflows.auto import selection as automatic


@pytest.mark.nightly
def test_the_training_of_the_pipeline_chooses_and_says_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is that of the posterior that was kept, near the exact N(0.8 x, 0.2); a second call, as after
    a kill, gives its bits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(automatic, "_SYNTHETIC", 10_000)
    monkeypatch.setattr(automatic, "_PRIOR_DRAWS", 1_000)
    monkeypatch.setattr(
        schedules, "for_synthetic_data", lambda number: schedules.TrainingSchedule(256, 300, 3e-3, 0.0, 0.99)
    )
    monkeypatch.setattr(
        schedules, "for_simulations", lambda number: schedules.TrainingSchedule(64, 100, 2e-3, 0.1, 0.99)
    )
    train = {"inference_network": {"name": "auto"}}
    experiment = load_experiment(write_experiment(tmp_path, "auto_experiment", train=train))
    simulator = study_of(experiment).simulator
    data = {"training": simulator.sample(400, seed=1), "validation": simulator.sample(100, seed=2)}
    training = train_workflow(question_of(experiment), data, "key", lambda epoch, losses: None)
    assert training.choices["trained on"] == "learned likelihood"
    assert training.choices["simulations"] == 400
    store = open_store(tmp_path)
    with Tracker.start(store, "auto", "pipeline", key="auto") as tracker:
        record_training(tracker, {}, "train", training, reused=False)
    artifacts = tracker.artifact_path
    assert artifacts is not None
    assert json.loads((artifacts / "choices.json").read_text()) == training.choices
    PipelineConsole(question_of(experiment)).trained(training, reused=False)
    assert "trained on            learned likelihood" in capsys.readouterr().out
    draws = load_approximator(Path(training.model)).sample(
        num_samples=4_000, conditions={"x": np.ones((1, 2))}, seed=0
    )["theta"][0]
    np.testing.assert_allclose(draws.mean(axis=0), 0.8, atol=0.25 * np.sqrt(0.2))
    np.testing.assert_allclose(draws.std(axis=0), np.sqrt(0.2), rtol=0.1)
    # seconds: all that "auto" trains, several small networks, is trained twice
    again = train_workflow(question_of(experiment), data, "key", lambda epoch, losses: None)
    assert again == training


def test_auto_takes_no_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It chooses them: an error before work starts."""
    monkeypatch.syspath_prepend(tmp_path)
    train = {"inference_network": {"name": "auto", "arguments": {"depth": 3}}}
    experiment = load_experiment(write_experiment(tmp_path, "auto_arguments", train=train))
    with pytest.raises(ConfigurationError, match='no arguments of "auto"'):
        workflow_of(question_of(experiment))
