"""The composition of Michelson's five experiments, run as a user runs it, against the exact posterior of all
100 measurements."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SBI_MODELS = str(Path(sys.executable).with_name("sbi-models"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of the experiment."""
    root = tmp_path_factory.mktemp("composed")
    done = subprocess.run(
        [SBI_MODELS, "run", "michelson-composed"],
        cwd=root,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    (artifacts,) = root.glob("mlruns/artifacts/*/artifacts")
    return artifacts


def test_the_amortized_posteriors_are_the_exact_ones(composed: Path) -> None:
    """For each experiment alone, this network is as right as that of the main job: means within 0.1 exact sd,
    and sds within 5 %."""
    table = pd.read_csv(composed / "inference" / "posteriors.csv")
    assert len(table) == 10
    assert table["error/sd"].abs().max() <= 0.1
    assert (table["sd ratio"] - 1).abs().max() <= 0.05


def test_the_composed_posterior_is_the_exact_one_of_all_measurements(composed: Path) -> None:
    """By the learned likelihood, without a warning: means of speed and spread are within 0.1 exact posterior
    sd, and sds within 5 %."""
    table = pd.read_csv(composed / "composition" / "posterior.csv")
    assert table["error/sd"].abs().max() <= 0.1
    assert (table["sd ratio"] - 1).abs().max() <= 0.05
    report = json.loads((composed / "composition" / "report.json").read_text())
    assert (report["returned"], report["warnings"]) == ("likelihood", [])
