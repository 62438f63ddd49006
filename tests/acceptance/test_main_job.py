"""The main job, run as a user runs it, against the exact posterior."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SBI_MODELS = str(Path(sys.executable).with_name("sbi-models"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
"""Without the folders of Prefect that other tests have set for this process: everything of the job stays in
its scratch folder."""

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900), pytest.mark.xdist_group("main-job")]


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the main job has run."""
    root = tmp_path_factory.mktemp("main_job")
    started = time.perf_counter()
    done = subprocess.run(
        [SBI_MODELS, "run", "michelson"],
        cwd=root,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        check=False,
    )
    print(done.stdout, f"\n{time.perf_counter() - started:.0f} s")
    assert done.returncode == 0, done.stderr
    assert "reused, finished" not in done.stdout
    assert len(list((root / "mlruns" / "work" / "results").iterdir())) == 4
    return root


def test_the_amortized_posteriors_are_the_exact_ones(main_job: Path) -> None:
    """Of all five experiments the means of speed and spread are within 0.1 exact posterior sd, and the sds
    within 10 %."""
    (file,) = main_job.glob("mlruns/artifacts/*/artifacts/inference/posteriors.csv")
    table = pd.read_csv(file)
    assert len(table) == 10
    assert table["error/sd"].abs().max() <= 0.1
    assert (table["sd ratio"] - 1).abs().max() <= 0.1


def test_a_second_run_reuses_the_work(main_job: Path) -> None:
    """The same job again says that it used the finished simulations and training."""
    done = subprocess.run(
        [SBI_MODELS, "run", "michelson"],
        cwd=main_job,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.count("reused, finished") == 4
    first, second = sorted(main_job.glob("mlruns/artifacts/*/artifacts/inference/draws.parquet"))
    assert first.read_bytes() == second.read_bytes()


def test_commands_and_snippets_of_the_readme_run(main_job: Path) -> None:
    """Every command of the README, and the snippet that asks the registered model, run after the main job, in
    order."""
    (main_job / "sbi_models").symlink_to(ROOT / "sbi_models")
    commands = re.findall(r"^\.venv/bin/sbi-models (.*)$", README, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["sample", "diagnose", "report"]
    for command in commands:
        done = subprocess.run(
            [SBI_MODELS, *command.split()],
            cwd=main_job,
            env=ENVIRONMENT | {"BROWSER": "true"},
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert command.split()[0] != "sample" or len(done.stdout.splitlines()) == 5001
    asking, _ = SNIPPETS
    subprocess.run(
        [sys.executable, "-c", asking],
        cwd=main_job,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        check=True,
    )
