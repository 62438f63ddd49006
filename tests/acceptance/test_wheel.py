"""The wheel, installed in a fresh environment outside of the checkout, runs a scaffolded experiment."""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900), pytest.mark.xdist_group("wheel")]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a program without the settings of other tests."""
    mine = ("PREFECT_", "MLFLOW_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    done = subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
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
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--wheel-dir", folder, source),
        cwd=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a fresh virtual environment with the wheel in it, which has the packages that it needs from
    the environment of the tests, and not the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
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


def test_what_the_package_imports_comes_with_the_wheel(wheel: Path) -> None:
    """Each package that a module imports at its top is a requirement of the wheel, or one of a requirement;
    each that is imported anywhere is one of an extra at least."""
    with zipfile.ZipFile(wheel) as opened:
        (metadata,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        lines = opened.read(metadata).decode().splitlines()
        code = {name: opened.read(name).decode() for name in opened.namelist() if name.endswith(".py")}
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    anyhow = _brought([line.partition(";")[0] for line in required])
    always = _brought([line for line in required if "extra ==" not in line])
    homes, missing = packages_distributions(), []
    for name, text in code.items():
        tree = ast.parse(text)
        for node in ast.walk(tree):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                imported = [str(node.module)]
            wanted = always if node in tree.body else anyhow
            others = {module.partition(".")[0] for module in imported}
            others -= {"sbi_models", *sys.stdlib_module_names}
            missing += [
                f"{name}: {top}" for top in others if not wanted & set(map(canonicalize_name, homes[top]))
            ]
    assert not missing


def _brought(requirements: list[str]) -> set[str]:
    """The distributions that these requirements install, with all that they require themselves."""
    found: set[str] = set()
    while requirements:
        requirement, *requirements = requirements
        parsed = Requirement(requirement)
        name = canonicalize_name(parsed.name)
        if name not in found and (parsed.marker is None or parsed.marker.evaluate({"extra": ""})):
            found.add(name)
            with suppress(PackageNotFoundError):  # of an extra that is not installed
                requirements += requires(name) or []
    return found


@pytest.mark.parametrize(
    "neighbor",
    [pytest.param(None, marks=pytest.mark.nightly, id="empty"), pytest.param("flows", id="with_flows")],
)
def test_a_scaffolded_experiment_runs_in_a_users_folder(
    environment: Path, neighbor: str | None, tmp_path: Path
) -> None:
    """In an empty folder, and in one whose own package is called flows: its name is the user's. The user has
    no empty databases of earlier runs."""
    if neighbor is not None:
        (tmp_path / neighbor).mkdir()
        (tmp_path / neighbor / "__init__.py").write_text("raise RuntimeError('the flows of the user')\n")
    mine = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    python, sbi_models = environment / "bin" / "python", environment / "bin" / "sbi-models"
    home = run(python, "-c", "import sbi_models; print(sbi_models.__file__)", cwd=tmp_path, **mine)
    assert Path(home.strip()).is_relative_to(environment)
    run(sbi_models, "new", "tiny_decay", cwd=tmp_path, **mine)
    settings = yaml.safe_load((tmp_path / "tiny_decay.yaml").read_text())
    settings["simulate"] = {"training": 1024, "validation": 128, "test": 32}
    settings["train"] |= {"epochs": 1}
    (tmp_path / "tiny_decay.yaml").write_text(yaml.safe_dump(settings))
    output = run(sbi_models, "run", "tiny_decay.yaml", cwd=tmp_path, **mine)
    assert "models:/tiny_decay" in output
    assert list(tmp_path.glob("mlruns/artifacts/*/artifacts/inference/draws.parquet"))
    assert len(list((tmp_path / "cache" / "sbi_models").glob("*.db"))) == 2
