"""The command line: draws out, errors in one line with exit code 2."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forked_programs import start_forked
from pipeline_runs import Finished

from sbi_models import load
from sbi_models.cli.main import main
from sbi_models.pipeline.experiment.yaml_files import FOLDER, experiment_names
from sbi_models.pipeline.studies.michelson import STUDY
from sbi_models.simulators.benchmarks.michelson import DATA
from sbi_models.tracking import open_store

pytestmark = [pytest.mark.acceptance, pytest.mark.xdist_group("flows")]  # they share runs

MODEL = "models:/michelson@champion"


@pytest.fixture
def call(first_run: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call `sbi-models ...` in the folder of the first pipeline run; returns exit code, standard output and
    standard error."""
    monkeypatch.chdir(first_run.root)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sbi-models", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        output, errors = capsys.readouterr()
        return int(stop.value.code or 0), output, errors

    return call


def test_draws_come_as_csv_on_standard_output(call) -> None:
    """Every draw of each data set is a row, the summary is on standard error, and the same seed gives the
    same draws as from Python."""
    code, output, errors = call("sample", MODEL, "--observations", DATA, "--num-samples", 100, "--seed", 3)
    assert code == 0
    frame = pd.read_csv(io.StringIO(output))
    assert list(frame.columns) == ["data_set", "draw", "mu", "log_variance"]
    assert len(frame) == 500
    rows = [line.split() for line in errors.splitlines()]
    assert {"mu", "log_variance"} <= {cell for row in rows for cell in row}
    assert "Warning" not in errors
    speeds = pd.read_csv(DATA)["speed"].to_numpy(float).reshape(5, 20, 1)
    draws = load(MODEL, certify=False).sample(num_samples=100, conditions={"x": speeds}, seed=3)
    np.testing.assert_array_equal(frame[["mu", "log_variance"]].to_numpy().reshape(5, 100, 2), draws["theta"])


def test_certificates_come_with_draws(call, tmp_path: Path) -> None:
    """A data set far from the simulations fails on standard error, with the reason; --no-certificate says
    nothing; draws are the same."""
    speeds = pd.read_csv(DATA)["speed"].to_numpy(float).reshape(5, 20)
    speeds[2, 7] = 5000
    pd.DataFrame(speeds).to_csv(tmp_path / "speeds.csv", header=False, index=False)
    options = ("sample", MODEL, "--observations", tmp_path / "speeds.csv", "--num-samples", 10)
    code, output, errors = call(*options)
    assert code == 0
    verdicts = {
        cells[0]: cells[1]
        for cells in map(str.split, errors.splitlines())
        if len(cells) > 1 and cells[1] in ("passed", "failed")
    }
    assert set(verdicts) == {"1", "2", "3", "4", "5"}
    assert verdicts["3"] == "failed"
    assert "data set 3: The observation is unlike the simulations of the training" in errors
    _, same, silent = call(*options, "--no-certificate")
    assert same == output
    assert "certificate" not in silent


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_draws_go_to_a_file(call, tmp_path: Path, suffix: str) -> None:
    """--output writes CSV or Parquet, and nothing to standard output."""
    path = tmp_path / f"draws{suffix}"
    code, output, _ = call("sample", MODEL, "--observations", DATA, "--num-samples", 10, "--output", path)
    assert (code, output) == (0, "")
    assert len(pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)) == 50


def _bad_file(folder: Path, text: str) -> Path:
    path = folder / "bad.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("make_arguments", "message"),
    [
        (lambda folder: (MODEL, _bad_file(folder, "1,2,3,4\n")), "got 4 columns"),
        (
            lambda folder: (MODEL, _bad_file(folder, "1,1,850\n1,2,nan\n")),
            "expected finite numbers, got 'nan'",
        ),
        (lambda folder: (MODEL, folder / "missing.csv"), "no such file"),
        (lambda folder: (MODEL, folder), "no such file"),
        (lambda folder: ("models:/michelsen@champion", DATA), "Did you mean 'michelson'?"),
        (lambda folder: ("models:/michelson@challengr", DATA), "Did you mean 'challenger'"),
        (lambda folder: ("models:/michelson/99", DATA), "no version '99'"),
        (lambda folder: ("nowhere.safetensors", DATA), "No saved approximator at nowhere.safetensors"),
        (lambda folder: (DATA, DATA), "not a readable approximator"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, tmp_path: Path, make_arguments, message: str) -> None:
    """Wrong columns, NaN, a missing file, an unknown model, alias or version, and a file that is no model end
    without a traceback."""
    model, observations = make_arguments(tmp_path)
    code, output, errors = call("sample", model, "--observations", observations)
    assert code == 2
    assert output == ""
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_wrong_output_name_is_refused_before_drawing(call, tmp_path: Path) -> None:
    """An output that is neither .csv nor .parquet is refused."""
    code, _, errors = call("sample", MODEL, "--observations", DATA, "--output", tmp_path / "draws.xlsx")
    assert code == 2
    assert "ending in .csv or .parquet" in errors


def test_an_unknown_experiment_is_refused(call) -> None:
    """An unknown experiment is named with the nearest known one."""
    code, _, errors = call("run", "michelsen")
    assert code == 2
    assert "Did you mean 'michelson'?" in errors


def test_a_folder_without_runs_is_one_line(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was tracked, sampling says so, and makes no database."""
    monkeypatch.chdir(tmp_path)
    code, _, errors = call("sample", MODEL, "--observations", DATA)
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.nightly
def test_a_new_process_samples_without_unpickling(first_run: Finished, tmp_path: Path) -> None:
    """A process that has only the package, and in which unpickling is an error, loads the registered model
    and draws."""
    (tmp_path / "program.py").write_text(
        "import pickle\n"
        "def refuse(*a, **k): raise RuntimeError('unpickled')\n"
        "import sbi_models, numpy as np\n"
        "from sbi_models import tracking; tracking.load\n"
        "import sbi_models.tracking.registry\n"
        "pickle.load = pickle.loads = pickle.Unpickler = refuse\n"
        f"model = sbi_models.load({MODEL!r})\n"
        "x = 850 + np.ones((2, 1, 1)) * np.arange(20)[:, None]\n"
        "print(model.sample(num_samples=7, conditions={'x': x}, seed=1)['theta'].shape)\n"
    )
    root = first_run.root
    start_forked(tmp_path / "program.py", [], folder=root).join()
    assert (root / "screen.txt").read_text() == "(2, 7, 2)\n", (root / "errors.txt").read_text()
    model_folder = first_run.root / "mlruns" / "artifacts" / "models"
    assert not [
        path for path in model_folder.rglob("*") if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".ckpt"}
    ]


# ---- diagnose


def test_the_registered_model_is_diagnosed_on_fresh_simulations(call) -> None:
    """The verdict is told for each parameter and jointly, in words and as JSON; the exit code is 0 if
    calibrated and 3 if not."""
    options = ("--num-datasets", 200, "--num-samples", 60)
    code, output, errors = call("diagnose", "michelson", *options)
    again, told, _ = call("diagnose", MODEL, "--data", "michelson", *options, "--json")
    verdict = json.loads(told)
    assert code == again == (0 if verdict["is_calibrated"] else 3)
    assert errors == ""
    assert verdict["sentence"] in output.splitlines()
    assert list(verdict["parameters"]) == ["mu", "log_variance"]
    assert all(row["sentence"] in output for row in (*verdict["parameters"].values(), verdict["joint"]))
    assert verdict["num_datasets"] == 200


def test_a_model_is_diagnosed_on_simulations_of_a_file(call, tmp_path: Path) -> None:
    """Parameters moved by two prior sds are biased or worse: exit code 3; the figures are in the folder that
    was asked for."""
    test = STUDY.simulator.sample(100, seed=1)
    np.savez(tmp_path / "test.npz", x=test["x"], theta=test["theta"] + 2 * test["theta"].std(axis=0))
    code, output, _ = call(
        "diagnose",
        MODEL,
        "--data",
        tmp_path / "test.npz",
        "--num-samples",
        50,
        "--figures",
        tmp_path / "figures",
    )
    assert code == 3
    assert output.startswith(("Biased", "Over-confident"))
    assert len(list((tmp_path / "figures").glob("*.png"))) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("michelsen",), "Did you mean 'michelson'"),
        ((MODEL,), "Expected --data as an experiment or a file"),
        ((MODEL, "--data", "missing.npz"), "no such file"),
        (("models:/other@champion", "--data", "michelson"), "'other'"),
    ],
)
def test_bad_input_of_a_diagnosis_is_one_line_and_exit_code_2(call, arguments, message: str) -> None:
    """An unknown experiment, model or file ends without a traceback, and not as a verdict."""
    code, output, errors = call("diagnose", *arguments)
    assert (code, output) == (2, "")
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_file_without_the_truth_is_refused(call, tmp_path: Path) -> None:
    """Simulations without their parameters cannot be used: exit code 2, and the name of what is missing."""
    np.savez(tmp_path / "test.npz", x=np.zeros((30, 20, 1)))
    code, _, errors = call("diagnose", MODEL, "--data", tmp_path / "test.npz")
    assert code == 2
    assert "Expected 'theta'" in errors


# ---- list, promote


def test_experiments_and_models_are_listed(call) -> None:
    """Each experiment has the first line of its file whole; the model its versions, and the version of each
    alias."""
    code, output, errors = call("list")
    assert (code, errors) == (0, "")
    lines = [line.split(maxsplit=1) for line in map(str.rstrip, output.splitlines()) if line]
    for name in experiment_names():
        first, *_ = (FOLDER / f"{name}.yaml").read_text().splitlines()
        assert [name, first.removeprefix("# ")] in lines
    assert lines[-1][0] == "michelson"
    assert lines[-1][1].split(maxsplit=1) == ["1", "challenger 1, champion 1"]


def test_without_a_store_there_are_no_models(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiments are listed where nothing was tracked, too; that is said, and no store is made."""
    monkeypatch.chdir(tmp_path)
    code, output, _ = call("list")
    assert code == 0
    assert "michelson-ensemble" in output
    assert "no models: Expected a tracking database at" in output
    assert not (tmp_path / "mlruns").exists()


def test_a_version_is_promoted_by_hand(call, first_run: Finished) -> None:
    """By number or alias; the words say which version it is and which it was. One that is the champion stays
    it, with its notes."""
    client = open_store(first_run.root).client
    before = client.get_model_version("michelson", "1")
    for name in ("models:/michelson/1", "models:/michelson@challenger"):
        code, output, errors = call("promote", name)
        assert (code, errors) == (0, "")
        assert output == "models:/michelson@champion is version 1 (until now it was version 1)\n"
    after = client.get_model_version("michelson", "1")
    assert (after.tags, after.description) == (before.tags, before.description)


def test_the_champions_are_listed(call) -> None:
    """The first champion of a pipeline has come by the gate; an unknown model is told with a name that is
    like it."""
    code, output, errors = call("champions", "michelson")
    assert (code, errors) == (0, "")
    assert "michelson: version 1 is the champion" in output
    assert "gaps" not in output
    code, _, errors = call("champions", "michelsn")
    assert code == 2
    assert "Did you mean 'michelson'" in errors


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/michelson/99", "no version '99'"),
        ("models:/michelsn/1", "Did you mean 'michelson'"),
        ("michelson", "Expected models:/NAME@ALIAS"),
    ],
)
def test_what_cannot_be_promoted_is_one_line_and_exit_code_2(call, model: str, message: str) -> None:
    """An unknown version or model, and something that is no address of a model."""
    code, output, errors = call("promote", model)
    assert (code, output) == (2, "")
    assert message in errors
    assert len(errors.strip().splitlines()) == 1
