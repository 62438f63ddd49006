"""The code of the section on whole numbers among the parameters runs, with few simulations."""

from functools import partialmethod
from typing import Any

import numpy as np
import pytest
from pages import blocks

import sbi_models as bf


def _prior(rng: np.random.Generator) -> dict[str, float]:
    return {"kind": float(rng.integers(1, 4)), "events": float(rng.poisson(9.0)), "theta": rng.normal()}


def _observe(kind: float, events: float, theta: float, rng: np.random.Generator) -> dict[str, Any]:
    return {"x": rng.normal([kind, events, theta])}


def test_its_code_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One epoch on 200 simulations: probabilities are shares of draws, the verdict is printed."""
    monkeypatch.setattr(bf.BasicWorkflow, "simulate", partialmethod(_few, method=bf.BasicWorkflow.simulate))
    monkeypatch.setattr(
        bf.BasicWorkflow, "fit_offline", partialmethod(_one_epoch, method=bf.BasicWorkflow.fit_offline)
    )
    (code,) = [block.code for block in blocks("howto.md") if "as_categorical" in block.code]
    names = {
        "bf": bf,
        "np": np,
        "simulator": bf.make_simulator([_prior, _observe]),
        "observed": np.ones((2, 3)),
    }
    exec(code, names)
    assert ((names["share"] >= 0) & (names["share"] <= 1)).all()
    assert set(np.unique(names["draws"]["kind"])) <= {1.0, 2.0, 3.0}
    assert "kind: " in capsys.readouterr().out


def _few(self: Any, number: int, *, method: Any, seed: int | None = None) -> Any:
    return method(self, min(number, 200), seed=seed)


def _one_epoch(self: Any, data: Any, *, method: Any, epochs: int) -> Any:
    assert epochs > 1
    return method(self, data, epochs=1)
