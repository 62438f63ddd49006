"""The code in the key of a step is all that its module reaches, and nothing else."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import sbi_models
from sbi_models import errors
from sbi_models.pipeline import cache, import_closure
from sbi_models.pipeline.cache import code_fingerprint, content_key
from sbi_models.pipeline.import_closure import package_sources, read_source

STEPS = ["simulate", "train", "sequential", "diagnose", "register", "infer", "likelihood", "compose"]
ELSEWHERE = ("sbi_models.cli", "sbi_models.pipeline.report", "sbi_models.pipeline.flows")


def _module(step: str) -> str:
    return f"sbi_models.pipeline.steps.{step}"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, whose files the tests change."""
    folder = tmp_path_factory.mktemp("copy") / "sbi_models"
    ignored = shutil.ignore_patterns("__pycache__", "*.yaml", "*.csv", "*.npz")
    shutil.copytree(Path(sbi_models.__file__).parent, folder, ignore=ignored)
    return folder


@pytest.fixture
def fingerprint(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Fingerprint of a step by the code of the copy."""
    monkeypatch.setattr(import_closure, "_ROOT", package)
    monkeypatch.setattr(import_closure, "_save_kept", lambda: None)

    def fingerprint(step: str) -> str:
        code_fingerprint.cache_clear()
        return code_fingerprint(_module(step))

    yield fingerprint
    code_fingerprint.cache_clear()


IMPORTS = """
import os, sys
import lightning, mlflow, pandas, prefect, rich, scipy.stats, torch  # once for all

for step in {steps}:
    if os.fork() == 0:
        __import__(step)
        names = [name for name in sys.modules if name.partition(".")[0] == "sbi_models"]
        print(step, *names, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.integration
def test_a_step_reaches_what_python_imports_for_it(tmp_path: Path) -> None:
    """Every module of the package that a process has after importing a step alone is in its closure."""
    code = IMPORTS.format(steps=[_module(step) for step in STEPS])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    imported = {line.split()[0]: set(line.split()[1:]) for line in done.stdout.splitlines()}
    assert set(imported) == {_module(step) for step in STEPS}
    for module, names in imported.items():
        assert names <= set(package_sources(module)), module


@pytest.mark.parametrize("step", STEPS)
def test_every_module_counts(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another meaning of any one module that the step reaches is another fingerprint."""
    closure = package_sources(_module(step))
    monkeypatch.setattr(cache, "package_sources", lambda module: closure)
    fingerprints = set()
    for changed in (None, *closure.values()):
        monkeypatch.setattr(cache, "meaning", lambda file, changed=changed: str(file == changed))
        code_fingerprint.cache_clear()
        fingerprints.add(code_fingerprint(_module(step)))
    code_fingerprint.cache_clear()
    assert len(fingerprints) == 1 + len(closure)


@pytest.mark.parametrize("step", STEPS)
def test_changes_of_files(step: str, package: Path, fingerprint: Callable[[str], str]) -> None:
    """A changed constant in the step's file, and in one far below it, changes the fingerprint; a comment, a
    docstring, and changed code elsewhere do not."""
    before = fingerprint(step)
    own, far = (package / f"pipeline/steps/{step}.py", package / "seeding.py")
    assert {own, far} <= set(package_sources(_module(step)).values())
    for file in (own, far):
        with changed(file, lambda text: f"{text}\nCHANGED = 1\n"):
            assert fingerprint(step) != before
        with changed(file, lambda text: f'# why\n"""Another one."""{text.split(DOCSTRING, 2)[2]}'):
            assert fingerprint(step) == before
    for name in ("cli/main.py", "pipeline/report/console.py", "pipeline/schedule.py", "tracking/server.py"):
        with changed(package / name, lambda text: f"{text}\nCHANGED = 1\n"):
            assert fingerprint(step) == before


def test_the_place_of_the_package_does_not_count(
    fingerprint: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the package in another folder has the fingerprint of the package, so that another checkout
    uses finished steps again."""
    of_the_copy = fingerprint("simulate")
    monkeypatch.setattr(import_closure, "_ROOT", Path(sbi_models.__file__).resolve().parent)
    assert fingerprint("simulate") == of_the_copy


DOCSTRING = '"""'


@contextmanager
def changed(file: Path, change: Callable[[str], str]) -> Iterator[None]:
    """A file with another text inside of the context."""
    text = file.read_text()
    file.write_text(change(text))
    try:
        yield
    finally:
        file.write_text(text)


@pytest.mark.parametrize("step", STEPS)
def test_no_step_reaches_console_or_report(step: str) -> None:
    """A changed word on the screen makes nobody train again."""
    assert not [name for name in package_sources(_module(step)) if name.startswith(ELSEWHERE)]


def test_simulations_do_not_depend_on_networks() -> None:
    """The step simulate reaches neither networks nor trainings nor MLflow."""
    names = package_sources(_module("simulate"))
    rooms = ("networks", "training", "workflows", "approximators", "tracking", "diagnostics")
    assert not [name for name in names if name.split(".")[1:2] and name.split(".")[1] in rooms]


def test_names_that_a_package_imports_late_lead_to_their_module() -> None:
    """`from sbi_models import load` reaches loading.py by the tables of both packages."""
    package = Path(sbi_models.__file__).parent
    assert read_source(package / "tracking" / "__init__.py").homes["load"] == "loading"
    assert "sbi_models.tracking.loading" in package_sources(_module("infer"))
    assert "sbi_models.tracking.server" not in package_sources(_module("infer"))


def test_versions_of_torch_and_numpy_are_in_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of one of them gives another key; the version of another package does not."""
    keys = []
    for changed in ("", "torch", "numpy", "pandas"):
        monkeypatch.setattr(cache, "version", lambda name, changed=changed: "2" if name == changed else "1")
        keys.append(content_key("train", _module("train"), 1))
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


def test_calls_of_import_module_are_followed_by_the_absolute_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`import_module("a.b")` names a module from the top, and `from . import c` one beside the file."""
    nothing: dict[str, object] = {}
    monkeypatch.setattr(import_closure, "_kept", lambda: nothing)
    monkeypatch.setattr(import_closure, "_unsaved", [])
    file = tmp_path / "own.py"
    file.write_text("from importlib import import_module\nfrom . import c\nimport_module('a.b')\n")
    imports = set(read_source(file).imports)
    assert {("a.b", 0), ("importlib", 0), ("c", 1)} <= imports
    assert ("a.b", 1) not in imports


def test_a_package_behind_a_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is imported by a symbolic link, its code counts as that of the package, too."""
    (tmp_path / "link").symlink_to(Path(sbi_models.__file__).resolve().parent)
    monkeypatch.setattr(sbi_models, "__file__", str(tmp_path / "link" / "__init__.py"))
    spec = spec_from_file_location("closures_by_a_link", import_closure.__file__)
    assert spec is not None
    assert spec.loader is not None
    by_link = module_from_spec(spec)
    spec.loader.exec_module(by_link)
    monkeypatch.setattr(by_link, "user_cache_path", lambda name: tmp_path / name)
    nothing: dict[str, object] = {}
    monkeypatch.setattr(import_closure, "_kept", lambda: nothing)
    monkeypatch.setattr(import_closure, "_save_kept", lambda: None)
    found = by_link.sources_of([errors])
    assert {name: file.resolve() for name, file in found.items()} == package_sources("sbi_models.errors")


def test_what_was_read_is_kept_for_later_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later process takes what files of the package say from the folder of caches, and parses none."""
    monkeypatch.setattr(import_closure, "user_cache_path", lambda name: tmp_path / name)
    first = second = None
    with monkeypatch.context() as patch:
        patch.setattr(import_closure, "_unsaved", [])
        for kept in (import_closure._kept, import_closure._read, code_fingerprint):
            kept.cache_clear()
        first = {name: read_source(file) for name, file in package_sources("sbi_models.errors").items()}
        assert list(tmp_path.rglob("sources-*.json"))
        for kept in (import_closure._kept, import_closure._read):
            kept.cache_clear()
        patch.setattr(import_closure.ast, "parse", lambda text: pytest.fail("parsed again"))
        second = {name: read_source(file) for name, file in package_sources("sbi_models.errors").items()}
    for kept in (import_closure._kept, import_closure._read):
        kept.cache_clear()
    assert len(first) == 2
    assert {name: (s.meaning, set(s.imports), s.homes) for name, s in first.items()} == {
        name: (s.meaning, set(s.imports), s.homes) for name, s in second.items()
    }


def test_records_of_files_that_are_gone_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a checkout that was removed leave the file of caches when a new one is added; others stay."""
    there = tmp_path / "there.py"
    there.touch()
    old = {f"{file} 1 2": ["meaning", [], {}] for file in (there, tmp_path / "gone.py")}
    new = f"{import_closure._ROOT / 'errors.py'} 3 4"
    monkeypatch.setattr(import_closure, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(import_closure, "_unsaved", [new])
    monkeypatch.setattr(import_closure, "_kept", lambda: {**old, new: ["meaning", [], {}]})
    import_closure._save_kept()
    (kept,) = tmp_path.rglob("sources-*.json")
    assert set(json.loads(kept.read_text())) == {f"{there} 1 2", new}
