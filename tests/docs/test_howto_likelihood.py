"""The code of the sections on trials and on another prior runs, with few simulations."""

from functools import partialmethod
from typing import Any

import numpy as np
import pytest
from pages import blocks
from torch.distributions import Gamma, Normal

import sbi_models as bf
from sbi_models.workflows.likelihood import sampler


@pytest.mark.nightly
def test_its_code_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One epoch on 500 simulations, few chains: draws of two data sets, in which a tighter prior is seen."""
    # seconds: it trains two networks, and draws twice
    monkeypatch.setattr(sampler, "_CHAINS", 8)
    monkeypatch.setattr(sampler, "_ROUNDS", sampler._ROUNDS[:1])
    monkeypatch.setattr(sampler, "_FEWEST_KEPT", 10)
    monkeypatch.setattr(bf.Simulator, "sample", partialmethod(_few, method=bf.Simulator.sample))
    workflow = bf.LikelihoodWorkflow
    monkeypatch.setattr(workflow, "fit_offline", partialmethod(_one_epoch, method=workflow.fit_offline))
    code = [
        block.code
        for block in blocks("howto.md")
        if ("LikelihoodWorkflow" in block.code and '"ratio"' not in block.code) or "tighter" in block.code
    ]
    assert len(code) == 2
    rng = np.random.default_rng(1)
    names: dict[str, Any] = {"bf": bf, "np": np, "Gamma": Gamma, "Normal": Normal}
    for k, n in ((1, 3), (2, 8)):
        names |= {f"times_{k}": rng.gamma(4.0, 0.2, size=n), f"choices_{k}": rng.integers(0, 2, size=n) * 1.0}
    for one in code:
        exec(one.replace("num_samples=1000", "num_samples=200"), names)
    assert names["draws"]["drift"].shape == (2, 200, 1)
    assert names["tighter"]["bias"].std() < 0.25
    assert "effective_draws" in capsys.readouterr().out


def _few(self: Any, number: int, *, method: Any, **more: Any) -> Any:
    return method(self, min(number, 500), **more)


def _one_epoch(self: Any, data: Any, *, method: Any, **more: Any) -> Any:
    return method(self, data, epochs=1, **more)


@pytest.mark.nightly
def test_the_code_of_ratios_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch on 500 images: draws of two of them."""
    # seconds: it trains a network, and draws
    monkeypatch.setattr(sampler, "_CHAINS", 8)
    monkeypatch.setattr(bf.Simulator, "sample", partialmethod(_few, method=bf.Simulator.sample))
    workflow = bf.LikelihoodWorkflow
    monkeypatch.setattr(workflow, "fit_offline", partialmethod(_one_epoch, method=workflow.fit_offline))
    (code,) = [block.code for block in blocks("howto.md") if '"ratio"' in block.code]

    def image(theta: Any, rng: np.random.Generator) -> dict[str, Any]:
        return {"image": theta + rng.normal(size=(8, 8, 1))}

    simulator = bf.make_simulator([{"theta": Normal(0.0, 1.0)}, image])
    names: dict[str, Any] = {"bf": bf, "simulator": simulator, "images": np.zeros((2, 8, 8, 1))}
    exec(code, names)
    assert names["draws"]["theta"].shape == (2, 1000, 1)
