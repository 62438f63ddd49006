"""The examples run, as a user runs them: each file of examples/ is a test here, the guide in full and the
others with --quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from platformdirs import user_cache_path

EXAMPLES = Path(__file__).parents[2] / "examples"
GUIDE = "workflow_guide"
SERVERS = ("scheduled_recalibration", "serving")
"""Those that start servers, which is for the integration tests."""

LONGEST = ("hare_lynx",)
"""Those that take a minute with --quick, too."""

QUICK = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != GUIDE)
LARGEST_PICTURE = 120_000
"""Bytes: pictures are in the history of the repository for good."""


def run(name: str, folder: Path, *arguments: str) -> str:
    """What an example says, of a process in an empty folder; every warning that it does not expect is an
    error."""
    command = [
        sys.executable,
        "-W",
        "error",
        str(EXAMPLES / f"{name}.py"),
        "--output",
        str(folder / "figures"),
        *arguments,
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_"))
    }
    environment |= {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "XDG_CACHE_HOME": str(user_cache_path()),  # for the empty databases
        "SBI_MODELS_PROGRESS": "0",
        "MPLCONFIGDIR": str(folder),
        "OMP_NUM_THREADS": "1",  # threads that wait for each other take the time of other tests
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_the_snippets_of_the_guide_run(tmp_path):
    """Sections 7.1 to 7.5 of the user guide run to the last line, with no warning but that of trust, and
    leave model and figures."""
    print(run(GUIDE, tmp_path))
    (folder,) = tmp_path.glob("workflow_guide_*")
    figures = {path.stem for path in folder.glob("*.png")}
    assert figures == {
        "losses",
        "recovery",
        "calibration_ecdf",
        "coverage",
        "z_score_contraction",
        "posterior_predictive",
    }
    assert (folder / "my_model.keras").is_file()
    assert (tmp_path / "figures" / f"{GUIDE}.png").is_file()


def _marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    """When an example is run: with each change, unless it is long or starts servers; on any worker."""
    group = pytest.mark.xdist_group(f"example-{name}")
    if name in SERVERS:
        return pytest.mark.integration, group
    return pytest.mark.nightly if name in LONGEST else pytest.mark.acceptance, group


@pytest.mark.parametrize("name", [pytest.param(name, marks=_marks(name)) for name in QUICK])
@pytest.mark.timeout(400)
def test_the_example_runs(name, tmp_path):
    """With --quick it ends with exit code 0, without a warning, has told something, and leaves its figure and
    nothing else."""
    said = run(name, tmp_path, "--quick")
    print(said)
    assert said.strip()
    assert [path.name for path in (tmp_path / "figures").iterdir()] == [f"{name}.png"]
    assert not list(tmp_path.glob("tmp*")), "a scratch folder is left"


@pytest.mark.parametrize("name", [GUIDE, *QUICK])
def test_the_gallery_shows_the_example(name):
    """Its picture is committed and small, and the page of the gallery has the picture and the command."""
    picture = EXAMPLES.parent / "docs" / "img" / "gallery" / f"{name}.png"
    assert picture.stat().st_size <= LARGEST_PICTURE
    page = (EXAMPLES / "README.md").read_text()
    assert f"../docs/img/gallery/{name}.png" in page
    assert f"python examples/{name}.py" in page
