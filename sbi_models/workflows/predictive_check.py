"""Posterior predictive check: statistics of observations against data simulated from their posteriors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.certificates.explanations import describe_unusual, unusual_statistics
from sbi_models.approximators.certificates.scores import NonconformityScores
from sbi_models.errors import DataError
from sbi_models.ragged import fine_rows, joined
from sbi_models.simulators import Simulator
from sbi_models.simulators.contexts import known_contexts
from sbi_models.types import Variables

_SIMULATIONS_AT_ONCE = 16_384
_FEWEST_POOLED = 20
_ROUNDING = 1e-9
_WORST = 1e3
"""Value of the statistics of an observation whose posterior gives failed simulations alone."""


class PosteriorCheck:
    """Statistics of observations against those of data simulated from their posteriors."""

    def __init__(
        self,
        approximator: Approximator,
        simulator: Simulator,
        replicates: int,
        batch_size: int | None,
        seed: int,
    ) -> None:
        self.approximator, self.simulator, self.replicates = approximator, simulator, replicates
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, data: Variables, observed: int) -> tuple[Tensor, list[tuple[str, ...]]]:
        """Scores (n, 2) of data sets (n, ...), large for rare ones, and the rarest statistics of some.

        `observed` is the number of the first data sets, whose rarest statistics are described in words.
        """
        named = self.approximator.observation_statistics(data)
        statistics = torch.stack(list(named.values()), dim=1)
        values, pooled, replicates = self._compared(data, statistics, observed)
        space = NonconformityScores(neighbours=False)
        space.fit(pooled)
        scores = space.scores(values[:observed])
        words = []
        for row, of_observed in enumerate(replicates):
            (rarest,) = (
                unusual_statistics(list(named), statistics[row : row + 1], scores[row : row + 1], of_observed)
                if len(of_observed)
                else ((),)
            )
            words.append(describe_unusual(rarest, "data simulated from the posterior"))
        return space(values), words

    def _compared(
        self, data: Variables, statistics: Tensor, observed: int
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Statistics (n, d) and replicates (k, d) in sds of the replicates, and those of observations."""
        count, at_once = len(statistics), max(1, _SIMULATIONS_AT_ONCE // self.replicates)
        values, pooled, of_observed = [], [], []
        for start in range(0, count, at_once):
            rows = slice(start, start + at_once)
            replicated = self._replicated({name: value[rows] for name, value in data.items()}, start)
            mean = replicated.nanmean(dim=1, keepdim=True)
            sd = (replicated - mean).square().nanmean(dim=1, keepdim=True).sqrt()
            sd = torch.maximum(sd, _ROUNDING * mean.abs() + 1e-12)
            values.append(((statistics[rows, None] - mean) / sd)[:, 0].nan_to_num(_WORST))
            pooled.append(((replicated - mean) / sd).flatten(0, 1))
            of_observed += [
                part[part.isfinite().all(dim=1)] for part in replicated[: max(0, observed - start)]
            ]
        everything = torch.cat(pooled)
        everything = everything[everything.isfinite().all(dim=1)]
        if len(everything) < _FEWEST_POOLED:
            raise _no_replicates(f"{len(everything)} that did not fail")
        step = max(1, min(10, len(everything) // _FEWEST_POOLED))
        return torch.cat(values), everything[::step], of_observed

    def _replicated(self, data: Variables, start: int) -> Tensor:
        """Statistics (n, replicates, d) of data simulated from each posterior; NaN for failures."""
        approximator, n = self.approximator, len(next(iter(data.values())))
        total = n * self.replicates
        seed = seeding.derive(self.seed, "replicates", start)
        draws = approximator.sample(
            num_samples=self.replicates, conditions=data, batch_size=self.batch_size, seed=seed
        )
        theta: Variables = {
            name: draws[name].reshape(total, *approximator.shapes[name])
            for name in approximator.inference_names
        }
        simulated = replicated_data(self.simulator, theta, data, self.replicates, seed)
        conditions = {name: simulated[name] for name in approximator.condition_names}
        fine = np.ones(total, dtype=bool)
        for name, value in conditions.items():
            nan_too = name not in approximator.may_miss
            fine &= fine_rows(value, np.isfinite if nan_too else lambda part: ~np.isinf(part))
        if not fine.any():
            raise _no_replicates("failures only")
        named = approximator.observation_statistics({name: value[fine] for name, value in conditions.items()})
        statistics = torch.full((total, len(named)), torch.nan, dtype=torch.float64)
        statistics[torch.as_tensor(fine)] = torch.stack(list(named.values()), dim=1)
        return statistics.reshape(n, self.replicates, -1)


def replicated_data(
    simulator: Simulator, draws: Variables, data: Variables, replicates: int, seed: int
) -> Variables:
    """Data simulated from posterior draws, in the context of each data set as far as it is known.

    Args:
        simulator: simulator of the data.
        draws: parameters (n * replicates, ...), raw space.
        data: the data sets (n, ...), raw space.
        replicates: number of draws for each data set.
        seed: seed of the simulations.

    Returns:
        Simulations (n * replicates, ...), raw space.
    """
    contexts = known_contexts(simulator, data)
    total = len(next(iter(draws.values())))
    if not (contexts and simulator.is_batched):
        fixed: dict[str, Any] = {
            name: np.repeat(v, replicates, axis=0) for name, v in contexts.items()
        } | draws
        return simulator.sample(total, seed=seed, progress=False, **fixed)
    parts = []  # batched functions have one context in a call
    for row in range(total // replicates):
        rows = slice(row * replicates, (row + 1) * replicates)
        fixed = {name: value[[row] * replicates] for name, value in contexts.items()}
        fixed |= {name: value[rows] for name, value in draws.items()}
        one = seeding.derive(seed, "data set", row)
        parts.append(simulator.sample(replicates, seed=one, progress=False, **fixed))
    return {name: joined([part[name] for part in parts]) for name in parts[0]}


def _no_replicates(got: str) -> DataError:
    return DataError(
        f"Expected data simulated from the posteriors, got {got}. Leave the check out: num_replicates=0."
    )
