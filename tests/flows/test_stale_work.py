"""Finished work is used again only if nothing that it depends on has changed, whatever that is."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from sbi_models.datasets import SimulationStore
from sbi_models.errors import ConfigurationError, DataError, SimulationError, TrustWarning
from sbi_models.pipeline import folders
from sbi_models.pipeline.cache import (
    changed_sources,
    refuse_changed_sources,
    simulator_fingerprint,
)
from sbi_models.pipeline.experiment.question import question_of, study_of
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.import_closure import sources_of
from sbi_models.pipeline.steps import simulate as simulating
from sbi_models.pipeline.steps.simulate import refuse_stale, store_key, stores_of

MAIN = """import numpy as np
import sbi_models as bf
from {name}_package.inner import noise

SCALE = 1.0

def prior(rng):
    return {{"theta": rng.normal(size=2)}}

def likelihood(theta, rng):
    return {{"x": theta + noise(rng)}}

SIMULATOR = bf.make_simulator([prior, likelihood])
"""
INNER = """from ..{name}_tools import shift as by

def noise(rng):
    import {name}_late
    return 30.0 if rng.random() < 0.02 else rng.normal() + by()
"""


def _project(folder: Path, name: str, main: str = MAIN, **files: str) -> Experiment:
    """An experiment whose modules have names of their own, since modules stay imported."""
    given = {
        f"{name}.py": main,
        f"{name}_package/__init__.py": "",
        f"{name}_package/inner.py": INNER.replace("from ..", "from ").replace(
            "{name}_tools", f"{name}_tools"
        ),
        f"{name}_tools.py": "def shift():\n    return 0.0\n",
        f"{name}_late.py": "X = 1\n",
        f"{name}_other.py": "X = 1\n",
    }
    for file, text in (given | files).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text.format(name=name))
    settings: dict[str, Any] = {
        "name": name,
        "simulator": f"{name}:SIMULATOR",
        "inference_variables": ["theta"],
        "inference_conditions": ["x"],
        "register_as": {"name": name},
        "folder": str(folder),
        "simulate": {"training": 300, "validation": 30, "test": 30},
    }
    return Experiment.model_validate(settings)


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(folders, "_root", tmp_path)


def _store(experiment: Experiment, purpose: str = "training") -> SimulationStore:
    """What the pipeline keeps for a purpose."""
    (given,) = [given for given in stores_of(question_of(experiment)) if given.purpose == purpose]
    simulator = study_of(experiment).simulator

    def rows(start: int, stop: int) -> dict[str, Any]:
        return simulator.rows(start, stop, seed=given.seed, progress=False)

    number = experiment.simulate.of(purpose)
    return SimulationStore.create(given.folder, rows, number, seed=given.seed, fingerprint=given.fingerprint)


def test_the_code_of_a_simulator_is_what_it_imports(tmp_path: Path) -> None:
    """Modules below the project are followed, directly or not, in packages and inside of functions; others
    and installed ones are not."""
    experiment = _project(tmp_path, "followed")
    found = sources_of([call.definition for call in study_of(experiment).simulator.calls])
    assert set(found) == {
        "followed",
        "followed_package",
        "followed_package.inner",
        "followed_tools",
        "followed_late",
    }
    assert all(path.is_relative_to(tmp_path) for path in found.values())


@pytest.mark.parametrize("file", ["package/inner", "tools", "late"])
def test_a_changed_helper_changes_the_fingerprint(tmp_path: Path, file: str) -> None:
    """Two projects that differ in a module that is imported, in a package, or when needed: two fingerprints;
    comments do not count."""
    text = {"package/inner": "30.0", "tools": "0.0", "late": "1"}[file]
    prints = []
    for label in "abc":
        folder = tmp_path / label
        folder.mkdir()
        experiment = _project(folder, "again")
        changed = folder / f"again_{file}.py"
        before = changed.read_text()
        changed.write_text(
            {"a": before, "b": before + "\n# why\n", "c": before.replace(text, "-300.0", 1)}[label]
        )
        prints.append(simulator_fingerprint(question_of(experiment)))
        for name in [name for name in sys.modules if name.startswith("again")]:
            del sys.modules[name]
        sys.path.remove(str(folder))
    assert prints[0] == prints[1] != prints[2]


def test_files_and_variables_that_are_named_change_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`depends_on` has the content of files and folders and the value of environment variables in the key; a
    missing file is an error."""
    experiment = _project(tmp_path, "depending")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("1")
    monkeypatch.setenv("DETECTOR", "H1")
    depending = Experiment.model_validate(
        experiment.model_dump() | {"depends_on": {"files": ["data"], "variables": ["DETECTOR"]}}
    )
    prints = [simulator_fingerprint(question_of(experiment)), simulator_fingerprint(question_of(depending))]
    (tmp_path / "data/a.txt").write_text("2")
    prints += [simulator_fingerprint(question_of(experiment)), simulator_fingerprint(question_of(depending))]
    monkeypatch.setenv("DETECTOR", "L1")
    prints += [simulator_fingerprint(question_of(experiment)), simulator_fingerprint(question_of(depending))]
    assert prints[0] == prints[2] == prints[4]
    assert len(set(prints)) == 4
    missing = Experiment.model_validate(experiment.model_dump() | {"depends_on": {"files": ["no.txt"]}})
    with pytest.raises(
        ConfigurationError, match=r"the file or folder .*no\.txt that depends_on names, got none"
    ):
        simulator_fingerprint(question_of(missing))


def test_code_that_was_edited_after_its_import_is_refused(tmp_path: Path) -> None:
    """A module, or a helper, that changes on disk while it is loaded: a key that no other process finds, and
    no pipeline run."""
    experiment = _project(tmp_path, "edited")
    before = store_key(question_of(experiment))
    refuse_changed_sources(question_of(experiment))
    helper = tmp_path / "edited_tools.py"
    helper.write_text("def shift():\n    return 5.0\n")
    later = study_of(experiment).simulator.made_at + 60
    os.utime(helper, (later, later))
    assert changed_sources(question_of(experiment)) == [str(helper)]
    assert store_key(question_of(experiment)) != before
    with pytest.raises(
        ConfigurationError, match=r"edited_tools\.py changed since\. Start again in a new process"
    ):
        refuse_changed_sources(question_of(experiment))


STATEFUL = """import os
import numpy as np
import sbi_models as bf

def simulate(rng):
    theta = rng.normal(size=2)
    glitch = float(os.environ.get("GLITCH", "30"))
    return {{"theta": theta, "x": theta + (glitch if rng.random() < 0.05 else rng.normal())}}

SIMULATOR = bf.make_simulator(simulate)
"""


def test_stores_are_compared_with_what_the_simulator_gives_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What shows in a twentieth of the rows and in no code is found before simulations are used again; what
    is the same passes."""
    monkeypatch.setattr(simulating, "_SECONDS_OF_A_CHECK", 60.0)
    experiment = _project(tmp_path, "stateful", STATEFUL)
    refuse_stale(question_of(experiment))
    _store(experiment)
    refuse_stale(question_of(experiment))
    key = store_key(question_of(experiment))
    monkeypatch.setenv("GLITCH", "-300")
    assert store_key(question_of(experiment)) == key
    with pytest.raises(
        DataError,
        match=r"those that the simulator gives now, got another 'x' in row .*depends_on, or .*--fresh",
    ):
        refuse_stale(question_of(experiment))
    folders.forget(key)
    refuse_stale(question_of(experiment))


HIDDEN = """import os
import sbi_models as bf

SIMULATOR = bf.make_simulator(lambda: {{"theta": list(os.urandom(2)), "x": list(os.urandom(2))}})
"""


def test_simulations_that_do_not_repeat_are_refused_before_any_is_kept(tmp_path: Path) -> None:
    """A simulator that draws from what a seed does not reach is an error of the pipeline on every engine."""
    experiment = _project(tmp_path, "hidden", HIDDEN)
    with pytest.warns(TrustWarning, match="does not repeat"):
        study_of(experiment)
    with pytest.raises(SimulationError, match="the same whoever computes them"):
        simulating.simulate_missing(question_of(experiment))
    assert not (folders.work_folder() / store_key(question_of(experiment))).exists()


def test_a_file_as_old_as_the_simulator_is_not_changed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed is what was saved later, by however little: one of the same moment was imported as it is."""
    question = question_of(_project(tmp_path, "moment"))
    inner = tmp_path / "moment_package" / "inner.py"
    simulator = question.study.simulator
    moment = int(simulator.made_at)
    for file in tmp_path.rglob("*.py"):
        os.utime(file, (moment, moment))
    monkeypatch.setattr(simulator, "made_at", float(moment))
    assert changed_sources(question) == []
    os.utime(inner, ns=(moment * 10**9, moment * 10**9 + 1000))
    assert changed_sources(question) == [str(inner)]
