"""Peers for `quality.py`, with their defaults: `--network sbi` is the neural posterior estimation of sbi.

They are installed by `pip install --constraint constraints.txt --editable ".[benchmarks]"`.
"""

from typing import Any

import numpy as np
import torch

from sbi_models.simulators.benchmarks.base import Benchmark
from sbi_models.types import Variables


class Sbi:
    """NPE of sbi with its default flow, batches, early stop and validation share.

    Draws outside the support are drawn again.
    """

    automatic = None

    def __init__(self, benchmark: Benchmark, data: Variables, seed: int) -> None:
        from sbi.inference import NPE
        from sbi.utils import BoxUniform

        torch.manual_seed(seed)
        low, high = (torch.as_tensor(b, dtype=torch.float32) for b in (benchmark.lower, benchmark.upper))
        prior: Any = None
        if torch.isfinite(low).all() and torch.isfinite(high).all():
            prior = BoxUniform(low, high)
        elif (low == 0).all():
            prior = torch.distributions.Independent(
                torch.distributions.LogNormal(torch.zeros_like(low), 1.0), 1
            )  # for its support
        trainer = NPE(prior=prior, show_progress_bars=False)
        theta, x = (torch.as_tensor(data[name], dtype=torch.float32) for name in ("theta", "x"))
        trainer.append_simulations(theta, x).train()
        self._posterior: Any = trainer.build_posterior()

    def sample(self, *, num_samples: int, conditions: Variables, seed: int) -> Variables:
        """Draws for one data set, as those of a workflow."""
        torch.manual_seed(seed)
        x = torch.as_tensor(conditions["x"], dtype=torch.float32)
        draws = self._posterior.sample((num_samples,), x=x, show_progress_bars=False)
        return {"theta": np.asarray(draws.detach().numpy(), dtype=float)[None]}
