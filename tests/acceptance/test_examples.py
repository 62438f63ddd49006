"""The examples run, as a user runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_the_snippets_of_the_guide_run(tmp_path):
    """Sections 7.1 to 7.5 of the user guide run to the last line, with no warning but that of trust, and leave model and figures."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / "workflow_guide.py")]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "SBI_MODELS_PROGRESS": "0",
        "MPLCONFIGDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",  # threads that wait for each other take the time of other tests
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("workflow_guide_*")
    figures = {path.stem for path in folder.glob("*.png")}
    assert figures == {"losses", "recovery", "calibration_ecdf", "coverage", "z_score_contraction", "posterior_predictive"}
    assert (folder / "my_model.keras").is_file()
    print(done.stdout)
