"""A run made again from its record alone, and what is said if that does not give the same."""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from linear_experiment import usual, write_experiment
from pipeline_runs import Ended, run_commands

from sbi_models.cli.main import main
from sbi_models.pipeline import reproduction
from sbi_models.tracking import open_store

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("flows-reproduce")]  # the tests share a run


@dataclass
class Recorded:
    """A finished run, of whose experiment no file is left but those of its record."""

    root: Path
    run_id: str

    @property
    def folder(self) -> Path:
        """Where it is made again."""
        return self.root / "mlruns" / "work" / "reproductions" / self.run_id

    @property
    def artifacts(self) -> Path:
        (folder,) = (self.root / "mlruns" / "artifacts").glob(f"**/{self.run_id}/artifacts")
        return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    root, source = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("source")
    simulate = {"training": 512, "validation": 256, "test": 60}
    (ended,) = run_commands(
        root, ["run", str(write_experiment(source, "linear_recorded", usual(2), simulate=simulate))]
    )
    assert ended.code == 0, ended.errors
    shutil.rmtree(source)
    shutil.rmtree(root / "mlruns" / "work")
    store = open_store(root)
    (run,) = store.client.search_runs([store.experiment("linear_recorded")])
    return Recorded(root, run.info.run_id)


@pytest.fixture
def reproduce(recorded: Recorded, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """`sbi-models reproduce ...` in the folder of the run."""
    monkeypatch.chdir(recorded.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(
        reproduction, "end_on_signals", lambda: None
    )  # this process is that of other tests, too

    def reproduce(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["sbi-models", "reproduce", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ended(code, *capfd.readouterr())

    return reproduce


def _said(ended: Ended) -> dict[str, str]:
    """What is said of simulator, simulations, weights and draws."""
    lines = [line.split(maxsplit=1) for line in ended.output.splitlines() if line]
    return {name: rest for name, rest in lines if name in ("simulator", "simulations", "weights", "draws")}


SAME = dict.fromkeys(("simulator", "simulations", "weights", "draws"), "the same")


def test_a_run_is_made_again_to_the_bit(recorded: Recorded, reproduce) -> None:
    """Without the user's module, observations and working folder, the record alone gives the same
    simulations, weights and draws."""
    ended = reproduce(recorded.run_id)
    assert ended.code == 0, ended.errors
    assert _said(ended) == SAME
    assert ended.output.rstrip().endswith("Reproduced to the bit.")
    assert f"run          {recorded.run_id} again, in {recorded.folder}" in ended.output
    assert ended.errors == ""


def test_other_draws_are_told_with_their_distance(
    recorded: Recorded, reproduce, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A record with draws moved by one of their sds and spread by half as much again: exit code 3, and these
    two numbers."""
    _repeat_the_last(recorded, monkeypatch)
    draws, kept = recorded.artifacts / "inference" / "draws.parquet", tmp_path / "kept.parquet"
    shutil.copyfile(draws, kept)
    frame = pd.read_parquet(draws)
    column = frame.columns[-1]
    one = frame["data_set"] == "1"
    values = frame.loc[one, column]
    frame.loc[one, column] = (values - values.mean()) * 0.5 + values.mean() + 0.5 * values.std()
    frame.to_parquet(draws, index=False)
    try:
        ended = reproduce(recorded.run_id)
    finally:
        shutil.copyfile(kept, draws)
    assert ended.code == 3
    assert _said(ended) == SAME | {"draws": "means differ by at most 1.000 sd, sds by 100.0 %"}
    assert "Not the same to the bit.\n" in ended.output


def test_the_same_draws_in_another_file_are_the_same(
    recorded: Recorded, reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a Parquet file holds counts, and not how it is written, which another version of its writer may
    change."""
    _repeat_the_last(recorded, monkeypatch)
    draws = recorded.artifacts / "inference" / "draws.parquet"
    before = draws.read_bytes()
    pd.read_parquet(draws).to_parquet(draws, index=False, compression="gzip")
    try:
        assert reproduce(recorded.run_id).code == 0
    finally:
        draws.write_bytes(before)


def _repeat_the_last(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next reproduction find what the last one has computed."""
    kept = recorded.root / "kept"
    if not kept.exists():
        shutil.copytree(recorded.folder / "mlruns", kept)
    monkeypatch.setattr(reproduction, "_run", lambda folder: shutil.copytree(kept, folder / "mlruns"))


def test_another_seed_in_the_record_is_told(recorded: Recorded, reproduce, tmp_path: Path) -> None:
    """A record whose settings were changed gives other simulations, weights and draws of the same simulator:
    exit code 3."""
    settings = recorded.artifacts / "source" / "experiment.yaml"
    before = settings.read_text()
    settings.write_text(before + "seed: 2\n")
    try:
        ended = reproduce(recorded.run_id, "--folder", tmp_path / "again")
    finally:
        settings.write_text(before)
    assert ended.code == 3, ended.errors
    said = _said(ended)
    assert re.fullmatch(r"means differ by at most \d+\.\d{3} sd, sds by \d+\.\d %", said.pop("draws"))
    assert re.fullmatch(
        r"not the same: \d+ of \d+ tensors differ, by at most \S+ of the largest number of each",
        said.pop("weights"),
    )
    assert said == {"simulator": "the same", "simulations": "not the same: test, training, validation"}
    assert ended.output.rstrip().endswith(
        "as far as the run has noted them; the code of the training is the same."
    )


def test_what_cannot_be_made_again_is_one_line(recorded: Recorded, reproduce, tmp_path: Path) -> None:
    """An unknown run, one without a record, and a folder with other files: exit code 2 and the reason."""
    store = open_store(recorded.root)
    bare = store.client.create_run(store.experiment("bare")).info.run_id
    (tmp_path / "mine.txt").write_text("mine")
    cases = [
        ((np.random.default_rng(0).bytes(16).hex(),), "not found"),
        ((bare,), "Expected a pipeline run with its settings"),
    ]
    cases += [((recorded.run_id, "--folder", tmp_path), "Expected an empty or a new folder")]
    for words, message in cases:
        ended = reproduce(*words)
        assert (ended.code, ended.output) == (2, "")
        assert message in ended.errors
        assert len(ended.errors.strip().splitlines()) == 1
    assert (tmp_path / "mine.txt").read_text() == "mine"
