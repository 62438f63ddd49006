"""Standard output and error of any encoding, and answers in JSON that are alone on standard output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sbi_models.errors import TrackingError
from sbi_models.pipeline.runtime import make_folders
from sbi_models.tracking import open_store

ANSWER = """
import os, subprocess, sys
from sbi_models.pipeline.report.output import escape_unencodable, print_json, output_as
escape_unencodable()
with output_as(as_json=True):
    print("noise of a simulator")
    os.write(1, b"noise of compiled code\\n")
    subprocess.run(["echo", "noise of another program"], check=True)
    print_json({"name": "\\u03a9", "bad": "\\udcff"})
print("after")
"""


def ended(
    command: list[str], folder: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=plain | environment,
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_an_answer_in_json_is_alone_on_standard_output(encoding: str) -> None:
    """What functions, compiled code and other programs print meanwhile goes to standard error; letters are
    there in any encoding."""
    done = ended(["-c", ANSWER], PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    answer, _, rest = done.stdout.decode(encoding).partition("}")
    assert json.loads(answer + "}")["name"] == "Ω"
    assert rest.strip() == "after"
    assert done.stderr.count(b"noise of ") == 3


def test_names_that_the_locale_cannot_read_are_used_as_they_are(tmp_path: Path) -> None:
    """A command in a folder with an accent, under a locale that has none, writes into that folder."""
    folder = tmp_path / "é"
    folder.mkdir()
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = ended(
        ["-m", "sbi_models.cli.main", "new", "decay", "--folder", str(folder / "Ω")], folder, **locale
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert sorted(path.name for path in (folder / "Ω").iterdir()) == ["decay.csv", "decay.py", "decay.yaml"]


def test_a_closed_stream_is_no_error(tmp_path: Path) -> None:
    """A command whose standard output is closed does its work."""
    script = f"exec {sys.executable} -m sbi_models.cli.main new decay --folder {tmp_path} >&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "decay.py").is_file()


def test_folders_with_a_question_mark_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's addresses end at a question mark, so that databases were made beside the folder: neither
    MLflow's nor Prefect's is."""
    folder = tmp_path / "really?"
    folder.mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match="without a question mark in its path"):
        open_store(folder)
    monkeypatch.setenv("PREFECT_HOME", str(folder / "prefect"))
    with pytest.raises(TrackingError, match="without a question mark in its path"):
        make_folders()
    assert [path.name for path in tmp_path.iterdir()] == ["really?"]
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "name", ["a#b", "a%41", "a b", "a;b&c=d", "'a\"", "a\\b", "a\nb", "é Ω", "[a]*", "a@b:c"]
)
def test_other_folders_have_their_database_inside(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters that addresses and patterns give a meaning: the store works, and nothing is made
    elsewhere."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_store(folder)
    run = store.client.create_run(store.experiment("e"))
    (tmp_path / "f").write_text("content")
    store.client.log_artifact(run.info.run_id, str(tmp_path / "f"))
    (tmp_path / "f").unlink()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.read_text() for path in folder.rglob("f")] == ["content"]
    assert (folder / "mlruns" / "mlflow.db").stat().st_size > 0
