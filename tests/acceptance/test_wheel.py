"""The wheel, installed without the checkout, runs a scaffolded experiment."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Standard output of a program of this Python without the settings of other tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tracked files."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listing = subprocess.run(
        [
            "git",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "sbi_models",
            "flows",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run(
        *("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--wheel-dir", str(folder), str(source)),
        cwd=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, which takes the place of the checkout on Python's path."""
    folder = tmp_path_factory.mktemp("installed")
    run(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel)),
        cwd=folder,
    )
    return folder


def test_the_wheel_has_one_name_and_all_its_data(wheel: Path) -> None:
    """No top-level name but sbi_models; every file of the package that is no code is in it."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"sbi_models"}
    package = [path for path in (ROOT / "sbi_models").rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT).as_posix() for path in package if "__pycache__" not in path.parts}
    assert names == expected
    data = {name for name in names if not name.endswith(".py")}
    assert "sbi_models/py.typed" in data
    assert {Path(name).suffix for name in data} >= {".yaml", ".csv", ".j2", ".txt", ".typed"}


@pytest.mark.parametrize("neighbor", [None, "flows/__init__.py"], ids=["empty", "with_flows"])
def test_a_scaffolded_experiment_runs_in_a_users_folder(
    installed: Path, neighbor: str | None, tmp_path: Path
) -> None:
    """In an empty folder, and in one whose own package is called flows: its name is the user's."""
    if neighbor is not None:
        (tmp_path / neighbor).parent.mkdir()
        (tmp_path / neighbor).write_text("raise RuntimeError('the flows of the user')\n")
    place = {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    home = run("-c", "import sbi_models; print(sbi_models.__file__)", cwd=tmp_path, **place)
    assert Path(home.strip()).is_relative_to(installed)
    command = ("-c", "from sbi_models.cli.main import main; main()")
    run(*command, "new", "tiny_decay", cwd=tmp_path, **place)
    settings = yaml.safe_load((tmp_path / "tiny_decay.yaml").read_text())
    settings["simulate"] = {"training": 1024, "validation": 128, "test": 32}
    settings["train"] |= {"epochs": 1}
    (tmp_path / "tiny_decay.yaml").write_text(yaml.safe_dump(settings))
    output = run(*command, "run", "tiny_decay.yaml", cwd=tmp_path, **place)
    assert "models:/tiny_decay" in output
    assert list(tmp_path.glob("mlruns/artifacts/*/artifacts/inference/draws.parquet"))
