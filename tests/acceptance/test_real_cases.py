"""Hares and lynxes, and the influenza of 1978, run as a user runs them, against their reference
posteriors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sbi_models.diagnostics import c2st
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.studies.hare_lynx import MODEL

SBI_MODELS = str(Path(sys.executable).with_name("sbi-models"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]


def artifacts_of(root: Path, experiment: str) -> Path:
    """The artifacts of an experiment of the package, run in a folder."""
    done = subprocess.run(
        [SBI_MODELS, "run", experiment],
        cwd=root,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    (path,) = root.glob("mlruns/artifacts/*/artifacts/inference")
    return path


def test_hares_and_lynxes(tmp_path: Path) -> None:
    """Marginal means within 0.25 reference sd, sds within 15 %, C2ST (MLP) against the 2 000 reference draws
    at most 0.75.

    With at most 200 000 simulations, evaluations of the likelihood among them, and the words of the report
    that nothing is wrong.
    """
    settings = load_experiment("hare-lynx")
    assert settings.narrow is not None
    made = settings.narrow.rounds * (settings.narrow.training + settings.narrow.validation + 20)
    made += (
        settings.simulate.training
        + settings.simulate.validation
        + settings.simulate.test
        + (settings.infer.num_proposals or 0)
    )
    made += (
        201 * settings.infer.predictive_replicates
    )  # of the certificate: for the real data set, and for 200 simulated ones
    assert made <= 200_000
    found = artifacts_of(tmp_path, "hare-lynx")
    draws, exact = (
        pd.read_parquet(found / "draws.parquet")[list(MODEL.names)].to_numpy(),
        MODEL.reference_draws,
    )
    assert np.abs((draws.mean(axis=0) - exact.mean(axis=0)) / exact.std(axis=0)).max() <= 0.25
    assert np.abs(draws.std(axis=0) / exact.std(axis=0) - 1).max() <= 0.15
    assert c2st(exact, draws, "mlp", seed=1) <= 0.75
    (correction,) = json.loads((found / "corrections.json").read_text())
    assert not correction["warnings"]


def test_influenza(tmp_path: Path) -> None:
    """beta, gamma and R0 within one published sd, widths within 25 %: 1.73 (0.05), 0.54 (0.05), 3.2 (0.3),
    Grinsztajn et al. 2021."""
    table = pd.read_csv(artifacts_of(tmp_path, "influenza") / "posteriors.csv").set_index("quantity")
    for quantity, mean, sd in (("beta", 1.73, 0.05), ("gamma", 0.54, 0.05), ("R0", 3.2, 0.3)):
        assert abs(table.loc[quantity, "mean"] - mean) <= sd
        assert abs(table.loc[quantity, "sd"] / sd - 1) <= 0.25
