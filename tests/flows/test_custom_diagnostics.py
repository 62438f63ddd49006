"""A user's own metrics and figures in a pipeline run, which the experiment names."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from linear_experiment import write_experiment
from pipeline_runs import run_pipelines

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.custom_diagnostics import custom_functions, run_custom
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows.run_start import start_run
from sbi_models.pipeline.outcomes import Results, Training
from sbi_models.pipeline.steps.diagnose import diagnose_key
from sbi_models.tracking import open_store

pytestmark = pytest.mark.xdist_group("flows-custom")  # whose pipeline runs once

CUSTOM = """
import numpy as np
from {module}_helper import HALF

def size(samples, test_data, variable_keys, variable_names):
    '''Number of test simulations, plus half.'''
    return len(test_data[variable_keys[0]]) + HALF

def shapes(samples, test_data, *, variable_keys, variable_names):
    return {{"draws": samples["theta"].shape[1], "data": test_data["x"].shape[1]}}

def largest(samples, test_data, variable_keys, variable_names):
    return np.arange(2.0)

def picture(samples, test_data, variable_keys, variable_names):
    from matplotlib.figure import Figure
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    return figure

def wrong_arguments(samples): return 1.0
NUMBER = 3
"""


def write(folder: Path, module: str, custom: list[str], **changes: Any) -> Path:
    """An experiment with functions of its own in a second module, which imports a third."""
    (folder / f"{module}_own.py").parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}_own.py").write_text(CUSTOM.format(module=module))
    (folder / f"{module}_helper.py").write_text("HALF = 0.5\n")
    paths = [f"{module}_own:{name}" for name in custom]
    diagnose = {"num_samples": 60, "custom": paths}
    return write_experiment(folder, module, diagnose=diagnose, **changes)


@pytest.mark.integration
def test_metrics_and_figures_are_tracked_and_on_the_page(tmp_path: Path) -> None:
    """Numbers with known values are metrics of the run and of its members, the figure a file; the page has
    them, and so has the screen."""
    path = write(
        tmp_path / "files",
        "customized",
        ["size", "shapes", "largest", "picture"],
        simulate={"training": 512, "validation": 64, "test": 40},
        ensemble={"size": 2},
        gate={"calibrated": False},
    )
    (run,) = run_pipelines(tmp_path, {"file": str(path)}, shared=True)
    diagnosis = run.result["diagnosis"]
    expected = {
        "customized_own:size": 40.5,
        "customized_own:shapes draws": 60.0,
        "customized_own:shapes data": 2.0,
        "customized_own:largest theta_0": 0.0,
        "customized_own:largest theta_1": 1.0,
    }
    assert diagnosis["custom"] == expected
    store = open_store(run.root)
    data = store.client.get_run(run.result["run_id"]).data
    assert data.metrics["custom.customized_own_size"] == 40.5
    assert data.metrics["custom.customized_own_largest_theta_1"] == 1.0
    assert sum(name.startswith("custom.") for name in data.metrics) == len(expected)
    assert all(member["custom"] == expected for member in diagnosis["members"].values())
    file = diagnosis["custom_figures"]["customized_own:picture"]
    assert (Path(run.result["artifacts"]) / file).read_bytes().startswith(b"\x89PNG")
    page = (Path(run.result["artifacts"]) / "report.html").read_text()
    assert "Your own diagnostics" in page
    assert "<dt>customized_own:size</dt><dd>40.5</dd>" in page
    assert page.count("<strong>customized_own:picture</strong>") == 1
    assert "customized_own:size   40.5" in " ".join(run.screen.split("  ")) or "40.5" in run.screen


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ("missing", r"Expected an import path 'module:attribute', got 'wrong_\d_own:missing'"),
        ("NUMBER", r"Expected a function\(samples, .*\) at 'wrong_\d_own:NUMBER' .*, got int"),
        ("wrong_arguments", r"to take \(samples, test_data, .*Name its arguments so"),
    ],
)
def test_what_is_no_function_is_refused_before_anything_is_simulated(
    custom: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown path, something else than a function, and one that takes other arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = f"wrong_{['missing', 'NUMBER', 'wrong_arguments'].index(custom)}"
    path = write(tmp_path / "files", module, [custom])
    with pytest.raises(ConfigurationError, match=message):
        start_run(question_of(load_experiment(path)))
    assert not list(tmp_path.rglob("shard-*"))
    assert not list(tmp_path.rglob("mlflow.db"))


def test_the_code_of_a_metric_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed module that the metric imports, or another list, is another diagnosis; a comment is not."""
    monkeypatch.syspath_prepend(tmp_path)
    experiment = load_experiment(write(tmp_path, "keyed", ["size"]))
    training = Training(key="k", model="m", sha256="s", history={})
    helper = tmp_path / "keyed_helper.py"
    keys = []
    for text in ("HALF = 0.5\n", "HALF = 0.5  # why\n", "HALF = 0.25\n"):
        helper.write_text(text)
        keys.append(diagnose_key(question_of(experiment), {"test": "t"}, training))
    without = experiment.diagnose.model_copy(update={"custom": []})
    other = question_of(experiment.model_copy(update={"diagnose": without}))
    keys.append(diagnose_key(other, {"test": "t"}, training))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_keys_of_metrics_are_injective(tmp_path: Path) -> None:
    """Labels that MLflow would write alike have metrics of their own; the tags have their true names."""
    functions = {
        "a:b": lambda *given, **names: {"c d": 1.0, "c_d": 2.0},
        "a_b:c": lambda *given, **names: np.float32(3.0),
        "A_B:c": lambda *given, **names: SimpleNamespace(savefig=lambda file, dpi: file.write_text("x")),
        "a_b_c": lambda *given, **names: SimpleNamespace(savefig=lambda file, dpi: file.write_text("y")),
    }
    results = Results(tmp_path)
    fields = run_custom(functions, {}, {}, results, variable_keys=["t"], variable_names=["t"])
    assert sorted(results.metrics.values()) == [1.0, 2.0, 3.0]
    assert len({name.lower() for name in results.metrics}) == 3
    assert len({file.lower() for file in fields["custom_figures"].values()}) == 2
    assert set(results.fields()["files"]) == set(fields["custom_figures"].values())
    assert {"a:b c d", "a:b c_d", "a_b:c"} <= set(results.tags.values())


@pytest.mark.parametrize("value", ["text", None, np.zeros(3), {"a": "b"}])
def test_what_is_neither_a_number_nor_a_figure_is_refused(value: Any, tmp_path: Path) -> None:
    """The message says what may be returned."""
    with pytest.raises(ConfigurationError, match="Expected a number, numbers by name, an array with one"):
        run_custom(
            {"a:b": lambda *given, **names: value},
            {},
            {},
            Results(tmp_path),
            variable_keys=["t"],
            variable_names=["t", "u"],
        )


def test_there_are_none_by_default(tmp_path: Path) -> None:
    """An experiment that names none has none."""
    assert custom_functions(load_experiment("michelson")) == {}
