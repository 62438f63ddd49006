"""The code of the page of short answers runs, one block after another, with numbers of simulations and epochs
made small."""

from functools import partialmethod
from typing import Any

import numpy as np
import pytest
from pages import blocks
from torch.distributions import LogNormal, Uniform

import sbi_models as bf
from sbi_models.workflows.auto import schedules
from sbi_models.workflows.auto import selection as automatic

PROGRAM = """#!/bin/sh
echo "$1 2 3"
"""


def _prior(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"theta": rng.uniform(0.5, 1.0, size=1)}


def _usual(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.normal(theta, 0.1, size=3)}


def _cup(rate: float, room: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.normal(room + 70.0 * np.exp(-rate * np.arange(3.0)), 1.0)}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the page asks for, an epoch of a few batches and small synthetic data."""

    def less(
        self: Any, *data: Any, method: Any, epochs: int = 0, num_batches_per_epoch: int = 0, **more: Any
    ) -> Any:
        return method(
            self, *data, epochs=1, **({"num_batches_per_epoch": 2} if num_batches_per_epoch else {}), **more
        )

    for owner, name in (
        (bf.EnsembleWorkflow, "fit_online"),
        (bf.BasicWorkflow, "fit_disk"),
        (bf.BasicWorkflow, "fit_online"),
    ):
        monkeypatch.setattr(owner, name, partialmethod(less, method=getattr(owner, name)))
    monkeypatch.setattr(automatic, "_SYNTHETIC", 500)
    monkeypatch.setattr(automatic, "_PRIOR_DRAWS", 500)
    for function in ("for_synthetic_data", "for_simulations"):
        monkeypatch.setattr(
            schedules, function, lambda number: schedules.TrainingSchedule(128, 10, 2e-3, 0.0, 0.99)
        )


@pytest.mark.nightly
def test_its_code_runs(
    few: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every block of Python, with the names that the page takes as given; what it makes is used where it
    stops short of that."""
    # seconds: four blocks train, one of them all that "auto" does
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").write_text(PROGRAM)
    (tmp_path / "model").chmod(0o755)
    simulator = bf.make_simulator([_prior, _usual])
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "a.npz", **simulator.sample(64, seed=1))
    names: dict[str, Any] = {
        "bf": bf,
        "np": np,
        "LogNormal": LogNormal,
        "Uniform": Uniform,
        "simulator": simulator,
        "observed": simulator.sample(1, seed=2)["x"],
        "held_out": simulator.sample(16, seed=3),
    }
    code = [
        block.code
        for block in blocks("howto.md")
        if block.language == "python"
        and not any(word in block.code for word in ("as_categorical", "LikelihoodWorkflow", "tighter"))
    ]
    assert len(code) == 7
    few_simulations, program, disk, gaps, sizes, bounds, ensemble = code

    exec(few_simulations, names)
    assert "simulations" in capsys.readouterr().out
    exec("import subprocess\n" + program, names)
    own = bf.make_simulator([_prior, names["likelihood"]])
    np.testing.assert_allclose(own.sample(4, seed=1)["x"][:, 1:], [[2.0, 3.0]] * 4)
    names["workflow"] = bf.BasicWorkflow(
        simulator, inference_variables="theta", inference_conditions="x", seed=1, progress=False
    )
    exec(disk, names)
    assert len(names["workflow"].history.history["val_loss"]) == 1
    scope = dict(names)
    exec(gaps, scope)
    scope["workflow"].fit_online(epochs=1, num_batches_per_epoch=2)
    reported = np.where(np.arange(14) % 3 == 1, np.nan, 20.0)[None, :, None]
    draws = scope["workflow"].sample(num_samples=4, conditions={"cases": reported}, seed=1)["rates"]
    assert np.isfinite(draws).all()
    exec(sizes, scope)
    three = [np.zeros((number, 2)) for number in (5, 20, 70)]
    assert scope["workflow"].sample(num_samples=4, conditions={"points": three}, seed=1)["line"].shape == (
        3,
        4,
        2,
    )
    scope |= {"likelihood": _cup}
    exec(bounds, scope)
    room = scope["simulator"].sample(100, seed=1)["room"]
    assert ((room > 15.0) & (room < 25.0)).all()
    exec(ensemble, names)
    assert np.isfinite(names["apart"]).all()
