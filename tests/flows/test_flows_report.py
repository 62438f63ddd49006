"""The page of a run: whole, without a network, safe against what users call things, and opened by `sbi-models
report`."""

import base64
import copy
import json
import re
import sys
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipeline_runs import Finished
from small_run import small_experiment

from sbi_models.cli import report as opening
from sbi_models.cli.main import main
from sbi_models.errors import TrackingError
from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.outcomes import ModelDiagnosis, PipelineResult
from sbi_models.pipeline.report import html as report
from sbi_models.pipeline.report.html import make_report, publish_report
from sbi_models.tracking import RunRecord, open_store

pytestmark = [pytest.mark.acceptance, pytest.mark.xdist_group("flows")]  # they share runs

EVIL = '<script>alert("x")</script>'


class References(HTMLParser):
    """Where a page points to, the pictures that it holds, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "action", "data", "poster")
        ]
        self.ids |= {value or "" for name, value in attrs if name == "id"}


@pytest.fixture(scope="module")
def page(first_run: Finished) -> str:
    return (Path(first_run.result["artifacts"]) / "report.html").read_text(encoding="utf-8")


def _record(finished: Finished) -> RunRecord:
    return RunRecord.read(open_store(finished.root), finished.result["run_id"])


def _page(experiment: Experiment, result: dict[str, Any], record: RunRecord) -> str:
    return make_report(question_of(experiment), PipelineResult.model_validate(result), record)


def test_the_page_needs_no_network(page: str) -> None:
    """Everything it points to is inside it: data, and anchors that exist; no script, no imported style."""
    found = References(page)
    outside = [target for target in found.targets if not target.startswith(("data:", "#"))]
    assert outside == []
    assert {target.removeprefix("#") for target in found.targets if target.startswith("#")} <= found.ids
    assert not {"script", "iframe", "object", "embed"} & set(found.tags)
    assert "@import" not in page
    assert "url(" not in page


def test_every_figure_of_the_run_is_in_the_page(page: str, first_run: Finished) -> None:
    """The pictures are the tracked ones to the byte."""
    shown = {base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)}
    tracked = {path.read_bytes() for path in (Path(first_run.result["artifacts"]) / "figures").glob("*.png")}
    assert shown == tracked


def test_the_page_tells_answers_verdict_certificates_and_lineage(page: str, first_run: Finished) -> None:
    """Posterior means, the verdict in words, certificates with reasons, settings, hashes, and the ways to
    draw and to do it again."""
    result = first_run.result
    text = page.replace("&#34;", '"').replace("&#39;", "'").replace("&lt;", "<").replace("&gt;", ">")
    assert result["diagnosis"]["verdict"]["sentence"] in text
    for row in (
        *result["diagnosis"]["verdict"]["parameters"].values(),
        result["diagnosis"]["verdict"]["joint"],
    ):
        assert row["sentence"] in text
    for row in result["inference"]["table"]:
        assert f"<td>{row['mean']:.0f}</td>" in page
    failed = [
        certificate
        for certificate in result["inference"]["certificates"]
        if certificate["verdict"] != "passed"
    ]
    for certificate in failed:
        assert f"<h3>experiment {certificate['data_set']}</h3>" in page
        assert all(
            statistic in text
            for statistic in certificate["unusual"]
            if certificate["warnings"][0].count(statistic)
        )
    for value in (
        *result["simulations"]["content_hash"].values(),
        result["training"]["sha256"],
        result["inference"]["draws_sha256"],
    ):
        assert value in page
    assert f"sbi-models reproduce {result['run_id']}" in page
    assert "sbi-models sample models:/michelson@champion" in page
    assert "sbi-models serve models:/michelson@champion" in page
    assert "bf.load('models:/michelson@champion')" in text
    assert "training: 4096" in page
    assert "4 096" in page


def test_the_python_of_the_page_compiles(page: str) -> None:
    """What it says to type in Python is Python."""
    text = page.replace("&#39;", "'")
    (code,) = re.findall(r"<h3>In Python</h3>\s*<pre>(.*?)</pre>", text, re.DOTALL)
    compile(code, "page", "exec")


def test_names_of_users_are_no_html(first_run: Finished) -> None:
    """Names of parameters, data sets, members' warnings and settings that are HTML are shown as texts."""
    result, record = copy.deepcopy(first_run.result), _record(first_run)
    result["inference"]["data_set_name"] = EVIL
    for row in result["inference"]["table"]:
        row[EVIL] = row.pop("experiment") + EVIL
        row["quantity"] = row["unit"] = EVIL
    for certificate in result["inference"]["certificates"]:
        certificate["data_set"] += EVIL
        certificate["warnings"] = [EVIL]
    verdict = result["diagnosis"]["verdict"]
    verdict["parameters"] = {
        name + EVIL: row | {"label": EVIL, "sentence": EVIL} for name, row in verdict["parameters"].items()
    }
    verdict["sentence"] = verdict["label"] = EVIL
    result["gate"]["reasons"] = [EVIL]
    result["registered"]["name"] = EVIL
    result["diagnosis"]["diagnostics"] = {EVIL: {EVIL: 1.0}}
    result["training"]["choices"] = {EVIL: EVIL}
    experiment = small_experiment({"register_as": {"name": "<b>x<b>"}}).model_copy(update={"name": EVIL})
    made = _page(experiment, result, record)
    assert EVIL not in made
    assert "<b>" not in made
    assert made.count("&lt;script&gt;") > 20
    assert "script" not in References(made).tags


def test_a_run_without_observations_has_a_page(first_run: Finished) -> None:
    """It says that there were none, and has the rest."""
    made = _page(small_experiment({}), first_run.result | {"inference": None}, _record(first_run))
    assert "No real observations were given" in made
    assert 'id="certificates"' not in made
    assert first_run.result["diagnosis"]["verdict"]["sentence"] in made


def test_members_and_a_composition_are_in_the_page(first_run: Finished) -> None:
    """An ensemble has a row and figures for each member; a composition its table, facts and warnings."""
    result = copy.deepcopy(first_run.result)
    history, diagnosis = result["training"]["history"], result["diagnosis"]
    member = {"weight": 0.25, "best_epoch": 2, "num_parameters": 1, "architecture": {}}
    result["training"]["members"] = {"flow": member}
    history |= {"flow/loss": [1.0, 0.5], "flow/val_loss": [1.0, 0.625]}
    names = ModelDiagnosis.model_fields
    diagnosis["members"] = {"flow": {name: diagnosis[name] for name in names}}
    report_of = {
        "method": "calibrated",
        "num_items": 5,
        "calibrated": True,
        "simulations": 4000,
        "bias_shift": 0.5,
    }
    report_of |= {
        "calibration_residual": 0.125,
        "contradiction": None,
        "noise": 0.02,
        "warnings": ["Beware of it."],
    }
    report_of |= {"sbc_p_value": 0.25, "sbc_shift": None}
    rows = [row | {"experiment": "all 5"} for row in result["inference"]["table"][:2]]
    result["composition"] = {
        "table": rows,
        "report": report_of,
        "folder": ".",
        "files": {},
        "metrics": {},
        "tags": {},
        "draws_sha256": "0f" * 32,
    }
    made = _page(small_experiment({}), result, _record(first_run))
    assert "<td>0.250</td><td>2</td>" in made
    assert "loss 0.5000, val loss 0.6250" in made
    assert made.count("data:image/png") == 7 + 3
    for words in (
        "All 5 data sets together",
        "Beware of it.",
        "0.5 posterior sd, taken out by 4000 simulations",
        "0f" * 32,
    ):
        assert words in made


def test_a_page_that_cannot_be_made_costs_nothing_else(
    first_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason comes back in one line in place of an error."""

    def fail(*_: object) -> str:
        raise ValueError("no\nink")

    monkeypatch.setattr(report, "make_report", fail)
    result = PipelineResult.model_validate(first_run.result)
    tracker = SimpleNamespace(store=open_store(first_run.root), run_id=first_run.result["run_id"])
    assert publish_report(tracker, question_of(small_experiment({})), result) == "ValueError: no ink"  # type: ignore[arg-type]


# ---- sbi-models report


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a browser was asked to open, on a machine with a display."""
    seen: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", seen.append)
    return seen


@pytest.fixture
def call(first_run: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`sbi-models report ...` in the folder of the first run; exit code, standard output, standard error."""
    monkeypatch.chdir(first_run.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sbi-models", "report", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return call


def test_the_page_is_found_and_opened(call, first_run: Finished, opened: list[str]) -> None:
    """Its path is printed and opened; --no-browser, and a machine without display, open nothing."""
    path = Path(first_run.result["artifacts"]) / "report.html"
    assert call(first_run.result["run_id"]) == (0, f"{path}\n", "")
    assert opened == [path.as_uri()]
    assert call(first_run.result["run_id"], "--no-browser")[0] == 0
    assert len(opened) == 1


def test_without_a_display_nothing_is_opened(
    call, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server has no screen: the path is enough."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(opening.sys, "platform", "linux")
    assert call()[0] == 0
    assert opened == []


def test_the_last_run_is_the_default(
    call, first_run: Finished, second_run: Finished, opened: list[str]
) -> None:
    """Without an id it is the finished run that started last; as JSON, run and path are alone on standard
    output, and nothing opens."""
    newest = RunRecord.newest(open_store(first_run.root), "pipeline").run_id
    assert newest != first_run.result["run_id"]
    code, output, errors = call("--json")
    assert (code, errors, opened) == (0, "", [])
    told = json.loads(output)
    assert (told["run_id"], told["experiment"]) == (newest, "michelson")
    assert Path(told["report"]).is_file()
    assert second_run.result["report"] == "report.html"


def test_the_page_is_copied(call, first_run: Finished, opened: list[str], page: str, tmp_path: Path) -> None:
    """--output has the page to the byte, and opens nothing."""
    code, output, _ = call(first_run.result["run_id"], "--output", tmp_path / "mine.html")
    assert (code, output, opened) == (0, f"{tmp_path / 'mine.html'}\n", [])
    assert (tmp_path / "mine.html").read_text(encoding="utf-8") == page


def test_what_has_no_page_is_one_line(call, first_run: Finished, tmp_path: Path) -> None:
    """An unknown run, a run without a page, a folder that is not there, and a flow without runs: exit code 2
    and the cure."""
    store = open_store(first_run.root)
    bare = store.client.create_run(store.experiment("bare")).info.run_id
    cases = [
        (("0" * 32,), "not found"),
        ((bare,), "Run its experiment again"),
        (("--output", tmp_path / "no" / "x.html"), "Make the folder"),
    ]
    for words, message in cases:
        code, output, errors = call(*words)
        assert (code, output) == (2, "")
        assert message in errors
        assert len(errors.strip().splitlines()) == 1
    with pytest.raises(TrackingError, match="Run an experiment first"):
        RunRecord.newest(store, "another flow")


def test_the_end_of_a_run_tells_of_the_page(first_run: Finished) -> None:
    """The last lines on the screen have the command that opens it."""
    assert f"report     sbi-models report {first_run.result['run_id']}" in first_run.screen
