"""The README's own simulator, as a reader pastes it. Its commands run after the main job, in
`tests/acceptance/test_main_job.py`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import DOCS


@pytest.mark.acceptance
@pytest.mark.timeout(400)
def test_the_snippet_of_an_own_simulator_runs(tmp_path: Path) -> None:
    """It says a verdict in words, leaves the model, and draws from it for an observation that passes its
    certificate."""
    code = re.findall(
        r"```python\n(.*?)```", (DOCS.parent / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )[-1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "200 test data sets with 200 draws each" in done.stdout
    assert done.stdout.splitlines()[-1] == "passed"
    assert (tmp_path / "my_model.safetensors").is_file()
