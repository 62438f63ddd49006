"""The tutorial, as a reader follows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks
from platformdirs import user_cache_path


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    """Its files and commands, in order, lead to a calibrated champion, whose first cup passes and whose
    second one fails."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "XDG_CACHE_HOME": str(user_cache_path()),  # for the empty databases
        "SBI_MODELS_PROGRESS": "0",
        "MPLCONFIGDIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    folder = tmp_path / "cooling"
    folder.mkdir()
    shown = ""
    for block in blocks("tutorial.md"):
        if block.file is not None:
            (folder / block.file).write_text(block.code)
        elif block.language == "bash":
            for command in block.code.strip().splitlines():
                done = subprocess.run(
                    command,
                    shell=True,
                    capture_output=True,
                    text=True,
                    check=False,
                    cwd=folder,
                    env=environment,
                )
                print(done.stdout, done.stderr)
                assert done.returncode == 0, f"{command}: {done.stderr}"
                shown += done.stdout
        else:
            assert " ".join(block.code.split()) in " ".join(shown.split()), "output that the tutorial shows"
    assert "1 of 2 passed: 2 failed" in shown
    assert "['passed', 'failed']" in shown
    assert len((folder / "draws.csv").read_text().splitlines()) == 1 + 1000
