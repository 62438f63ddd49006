"""Does the posterior of an observation explain it? Scores of its statistics against those of data simulated from its posterior."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.issue import in_words
from sbi_models.approximators.certificates.spaces import Space
from sbi_models.errors import DataError
from sbi_models.simulators import Simulator
from sbi_models.types import Variables

_SIMULATIONS_AT_ONCE = 16_384
_WORST = 1e3
"""Of a statistic of an observation of whose posterior no simulation succeeds."""


class PosteriorCheck:
    """Statistics of observations against those of data simulated from their posteriors."""

    def __init__(self, approximator: Approximator, simulator: Simulator, replicates: int, batch_size: int | None, seed: int) -> None:
        self.approximator, self.simulator, self.replicates = approximator, simulator, replicates
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, data: Variables, observed: int) -> tuple[Tensor, list[tuple[str, ...]]]:
        """Scores (n, 2) of data sets (n, ...), large for what is rare, and of the first ones, observed, the rarest statistics in words."""
        found = self.approximator.observation_statistics(data)
        values, pooled = self._compared(data, torch.stack(list(found.values()), dim=1))
        space = Space(neighbours=False)
        space.fit(pooled)
        words = []
        for row in space.scores(values[:observed]):
            order = row.abs().argsort(descending=True).tolist()
            words.append(in_words([(list(found)[j], float(row[j])) for j in order], "data simulated from the posterior"))
        return space(values), words

    def _compared(self, data: Variables, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Statistics (n, d) in units of the spread of their replicates, and some replicates in those units (k, d)."""
        count, at_once = len(statistics), max(1, _SIMULATIONS_AT_ONCE // self.replicates)
        values, pooled = [], []
        for start in range(0, count, at_once):
            rows = slice(start, start + at_once)
            replicated = self._replicated({name: value[rows] for name, value in data.items()}, start)
            mean = replicated.nanmean(dim=1, keepdim=True)
            sd = (replicated - mean).square().nanmean(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
            values.append(((statistics[rows, None] - mean) / sd)[:, 0].nan_to_num(_WORST))
            pooled.append(((replicated - mean) / sd)[:, ::10].flatten(0, 1))
        everything = torch.cat(pooled)
        return torch.cat(values), everything[everything.isfinite().all(dim=1)]

    def _replicated(self, data: Variables, start: int) -> Tensor:
        """Statistics (n, replicates, d) of data simulated from the posterior of each row; NaN where a simulation failed."""
        approximator, n = self.approximator, len(next(iter(data.values())))
        total = n * self.replicates
        seed = seeding.derive(self.seed, "replicates", start)
        draws = approximator.sample(num_samples=self.replicates, conditions=data, batch_size=self.batch_size, seed=seed)
        theta: dict[str, Any] = {name: draws[name].reshape(total, *approximator.shapes[name]) for name in approximator.inference_names}
        simulated = self.simulator.sample(total, seed=seed, progress=False, **theta)
        conditions = {name: simulated[name] for name in approximator.condition_names}
        checked = [name for name in conditions if name not in approximator.may_miss]
        fine = np.all([np.isfinite(conditions[name]).reshape(total, -1).all(axis=1) for name in checked], axis=0)
        if not fine.any():
            raise DataError("Expected data simulated from the posteriors, got failures only. Leave the check out: num_replicates=0.")
        found = approximator.observation_statistics({name: value[fine] for name, value in conditions.items()})
        statistics = torch.full((total, len(found)), torch.nan, dtype=torch.float64)
        statistics[torch.as_tensor(fine)] = torch.stack(list(found.values()), dim=1)
        return statistics.reshape(n, self.replicates, -1)
