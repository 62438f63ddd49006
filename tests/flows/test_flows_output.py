"""Answers as JSON, quiet commands, and the help."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pipeline_runs import Finished
from rich.console import Console

from sbi_models import progress
from sbi_models.cli import serve as serving
from sbi_models.cli.main import main
from sbi_models.cli.serve import refuse_taken
from sbi_models.errors import ConfigurationError, DriftError
from sbi_models.pipeline.experiment.yaml_files import experiment_names
from sbi_models.pipeline.outcomes import PipelineResult
from sbi_models.pipeline.report.json_summary import pipeline_summary
from sbi_models.pipeline.report.output import (
    output_as,
    print_json,
    print_line,
    progress_console,
    result_console,
)
from sbi_models.pipeline.report.usage import curl_example
from sbi_models.simulators.benchmarks.michelson import DATA

pytestmark = [pytest.mark.acceptance, pytest.mark.xdist_group("flows")]  # they share runs

MODEL = "models:/michelson@champion"


@pytest.fixture
def call(first_run: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Call `sbi-models ...` in the folder of the first run; exit code, standard output, standard error."""
    monkeypatch.chdir(first_run.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sbi-models", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable says anything of progress bars."""
    for name in ("CI", "SBI_MODELS_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_quiet_says_no_stage_and_shows_no_bar(
    bars: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inside, stages and bars are silent, also in processes that it starts, and the answer is not; afterwards
    all is as before."""
    assert progress.enabled_by_default()
    with output_as(quiet=True):
        assert not progress.enabled_by_default()
        assert os.environ["SBI_MODELS_PROGRESS"] == "0"
        progress_console().print("stage")
        result_console().print("answer")
    assert progress.enabled_by_default()
    assert "SBI_MODELS_PROGRESS" not in os.environ
    assert capsys.readouterr() == ("answer\n", "")


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, True),
        ({"CI": "true"}, False),
        ({"CI": "false"}, True),
        ({"CI": "true", "SBI_MODELS_PROGRESS": "1"}, True),
        ({"SBI_MODELS_PROGRESS": "0"}, False),
    ],
)
def test_bars_are_silent_in_ci(bars: pytest.MonkeyPatch, environment: dict[str, str], shown: bool) -> None:
    """Where CI is set, unless SBI_MODELS_PROGRESS says otherwise."""
    for name, value in environment.items():
        bars.setenv(name, value)
    assert progress.enabled_by_default() is shown


def test_an_answer_in_json_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Stages go to standard error, words nowhere, and numbers that JSON does not have are null."""
    with output_as(as_json=True):
        progress_console().print("stage")
        result_console().print("words")
        print_json({"a": float("nan"), "b": [float("inf"), 1], "c": Path("x")})
    print_json({"d": 1})
    output, errors = capsys.readouterr()
    assert json.loads(output) == {"a": None, "b": [None, 1], "c": "x"}
    assert errors == "stage\n"


def test_the_answer_of_a_run_is_json(first_run: Finished) -> None:
    """Posteriors, certificates, verdict, model and page; nothing is lost on the way through JSON."""
    answer = pipeline_summary("pipeline", "michelson", PipelineResult.model_validate(first_run.result))
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert answer["run_id"] == first_run.result["run_id"]
    assert answer["posteriors"] == first_run.result["inference"]["table"]
    assert answer["composition"] is None
    assert answer["model"]["is_champion"]
    assert Path(answer["report"]).is_file()


def test_the_list_as_json(call) -> None:
    """Experiments with their descriptions, and the model with versions and aliases."""
    code, output, errors = call("list", "--json")
    told = json.loads(output)
    assert (code, errors, told["no_models"]) == (0, "", None)
    assert [row["name"] for row in told["experiments"]] == experiment_names()
    assert {"name": "michelson", "versions": [1], "aliases": {"challenger": 1, "champion": 1}} in told[
        "models"
    ]


def test_samples_as_json(call, tmp_path: Path) -> None:
    """Moments and quantiles of the draws that go to --output, and certificates; nothing on standard error."""
    options = ("sample", MODEL, "--observations", DATA, "--num-samples", 50)
    code, output, errors = call(*options, "--json", "--output", tmp_path / "draws.csv")
    assert (code, errors) == (0, "")
    told, frame = json.loads(output), pd.read_csv(tmp_path / "draws.csv")
    assert [row["data_set"] for row in told["certificates"]] == list("12345")
    assert len(told["posteriors"]) == 10
    row = told["posteriors"][0]
    assert (row["data_set"], row["parameter"]) == ("1", "mu")
    assert row["mean"] == pytest.approx(frame.loc[frame["data_set"] == 1, "mu"].mean())
    assert row["2.5 %"] < row["50 %"] < row["97.5 %"]


def test_quiet_samples_tell_of_failures_only(call) -> None:
    """No summary; of certificates those that failed; the same draws."""
    options = ("sample", MODEL, "--observations", DATA, "--num-samples", 10)
    (_, loud, _), (code, output, errors) = call(*options), call(*options, "--quiet")
    assert code == 0
    assert output == loud
    assert "draws for each" not in errors
    assert "passed" not in errors
    assert call(*options, "--quiet", "--no-certificate")[2] == ""


def test_drift_keeps_what_was_found() -> None:
    """The error of a monitoring has its findings, for the answer in JSON."""
    assert DriftError("it drifts", {"alarms": ["x"]}).found == {"alarms": ["x"]}
    assert DriftError("it drifts").found == {}


# ---- serve


def test_a_model_is_served_by_this_python(call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alias becomes a version, options reach the server, and the example on the screen has the shape of
    the data."""
    started: list[tuple] = []
    monkeypatch.setattr(
        serving, "serve", lambda approximator, *given, **named: started.append((approximator, given, named))
    )
    monkeypatch.setattr(serving, "refuse_taken", lambda host, port: None)
    code, output, errors = call(
        "serve",
        MODEL,
        "--port",
        5077,
        "--timeout",
        5,
        "--allow-host",
        "a.example",
        "--allow-host",
        "b.example",
    )
    assert (code, output) == (0, "")
    ((approximator, given, named),) = started
    assert approximator.condition_names == ("x",)
    assert given == ("127.0.0.1", 5077)
    assert named == {"timeout": 5.0, "names": ["a.example", "b.example"]}
    assert "models:/michelson/1 on http://127.0.0.1:5077/invocations" in errors
    body = errors.split("-d '")[1].rpartition("'")[0]
    asked = json.loads(body)
    assert pd.DataFrame(asked["inputs"][0]).shape == (20, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("models:/michelsn@champion",), "Did you mean 'michelson'"),
        (("models:/michelson/99",), "no version '99'"),
        (("michelson",), "Expected models:/NAME@ALIAS"),
        ((MODEL, "--host", "no.such.host.invalid"), "Expected an address of this machine"),
    ],
)
def test_what_cannot_be_served_is_one_line(call, words: tuple[str, ...], message: str) -> None:
    """No such model or version, no address of a model, no host: exit code 2 before a server starts."""
    code, output, errors = call("serve", *words)
    assert (code, output) == (2, "")
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_refused() -> None:
    """With the port, and another one to take."""
    with serving.socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"got 127.0.0.1:{port}: .*--port {port + 1}"):
            refuse_taken("127.0.0.1", port)
    refuse_taken("127.0.0.1", port)


def test_large_data_are_not_written_out() -> None:
    """An example for several large variables names their shapes."""
    text = curl_example("127.0.0.1", 5001, {"x": (100, 3), "y": (2,)})
    assert "@data.json" in text
    assert '{"x": (n, 100, 3), "y": (n, 2)}' in text


# ---- help


def test_help_imports_nothing_heavy() -> None:
    """Help of everything has the exit codes, and needs neither PyTorch nor MLflow, Prefect, pandas or
    NumPy."""
    program = (
        "import sys\n"
        "from sbi_models.cli.main import app\n"
        "from typer.testing import CliRunner\n"
        "names = 'run sample report new serve monitor reproduce'.split()\n"
        "for words in ([], *([name] for name in names)):\n"
        "    shown = CliRunner().invoke(app, [*words, '--help'])\n"
        "    assert shown.exit_code == 0\n"
        "    assert not words or 'Example: sbi-models' in shown.output, words\n"
        "    assert words or 'Exit codes: 0 success' in shown.output\n"
        "heavy = 'torch mlflow prefect pandas numpy jinja2 lightning matplotlib'.split()\n"
        "print(sorted(set(heavy) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_lines_go_on_below_on_a_terminal_only(is_terminal: bool) -> None:
    """On 24 columns with their first four left free, by words; in a file they are whole, for those who search
    it. Nothing is lost."""
    console = Console(
        file=io.StringIO(), width=24, force_terminal=is_terminal, color_system=None, soft_wrap=True
    )
    print_line(console, "p: [yellow]one two three four five six[/yellow]", indent=4)
    print_line(console, "short", indent=4)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    if is_terminal:
        assert max(map(len, lines)) <= 24
        assert all(line.startswith("    ") for line in lines[1:-1])
        assert len(lines) == 3
    else:
        assert lines == ["p: one two three four five six", "short"]
    assert " ".join(lines).split() == ["p:", "one", "two", "three", "four", "five", "six", "short"]
