"""`sbi-models new`: files that run as they are, and refusals before anything is written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pipeline_runs import run_commands

from sbi_models.cli.main import main
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.question import question_of, study_of
from sbi_models.pipeline.experiment.scaffold import make_experiment
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.steps.train import workflow_of

pytestmark = pytest.mark.xdist_group("flows-new")


def test_the_files_are_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three files in a new folder; their settings load, the simulator simulates, the observations have its
    shape, the networks fit."""
    folder = tmp_path / "experiments"
    monkeypatch.setattr(sys, "argv", ["sbi-models", "new", "scaffold_a", "--folder", str(folder)])
    with pytest.raises(SystemExit) as stop:
        main()
    output, errors = capsys.readouterr()
    assert not stop.value.code
    assert output.split() == [str(folder / f"scaffold_a.{suffix}") for suffix in ("py", "yaml", "csv")]
    assert f"sbi-models run {folder}/scaffold_a.yaml" in errors
    experiment = load_experiment(folder / "scaffold_a.yaml")
    assert (experiment.name, experiment.register_as.name) == ("scaffold_a", "scaffold_a")
    study = study_of(experiment)
    labels, observations = study.observations()
    assert labels == ["1", "2"]
    assert observations["y"].shape == (2, 12)
    simulated = study.simulator.sample(500, seed=1)["y"]
    assert np.isfinite(simulated).all()
    assert (simulated.min(axis=0) <= observations["y"]).all()
    assert (observations["y"] <= simulated.max(axis=0)).all()
    workflow_of(question_of(experiment))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-model", "For instance my_model"),
        ("2fast", "For instance my_2fast"),
        ("class", "For instance my_class"),
        ("../x", "For instance x"),
        ("", "For instance decay"),
        ("influenza", "an experiment of the package"),
        ("random", "Python would import"),
    ],
)
def test_names_that_would_not_work_are_refused(name: str, message: str, tmp_path: Path) -> None:
    """No identifier, an experiment of the package, and an installed module: the name, and one that would do;
    nothing is written."""
    with pytest.raises(ConfigurationError, match=message):
        make_experiment(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["py", "yaml", "csv"])
def test_nothing_is_overwritten(suffix: str, tmp_path: Path) -> None:
    """One of the files is there: it stays, and the others are not written."""
    (tmp_path / f"scaffold_b.{suffix}").write_text("mine")
    with pytest.raises(ConfigurationError, match="not there yet"):
        make_experiment("scaffold_b", tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    """Where a file is in the way of the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="can be written to"):
        make_experiment("scaffold_c", tmp_path / "file" / "below")


@pytest.mark.integration
def test_it_runs_quietly_with_its_answer_as_json(tmp_path: Path) -> None:
    """With fewer simulations, `run --json --quiet` prints JSON alone: posteriors of both data sets, verdict,
    model and page."""
    _, settings, _ = make_experiment("scaffold_run", tmp_path)
    small = yaml.safe_load(settings.read_text()) | {
        "simulate": {"training": 512, "validation": 128, "test": 60}
    }
    small["train"]["epochs"] = 1
    settings.write_text(yaml.safe_dump(small))
    ended, said = run_commands(
        tmp_path, ["run", str(settings), "--json", "--quiet"], ["run", str(settings), "--quiet"]
    )
    assert ended.code == said.code == 0
    assert ended.errors == said.errors == ""
    answer = json.loads(ended.output)
    assert [row["data set"] for row in answer["posteriors"]] == ["1", "1", "2", "2"]
    assert answer["model"]["uri"] == "models:/scaffold_run/1"
    assert answer["verdict"]["label"]
    assert Path(answer["report"]).is_file()
    assert "[1/5]" not in said.output
    assert "report     sbi-models report" in said.output
