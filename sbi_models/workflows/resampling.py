"""Resampling of weighted draws, and what their reports have in common.

Weights are Pareto-smoothed, and draws are taken again in proportion to them by systematic resampling (A.
Vehtari et al., Pareto smoothed importance sampling, JMLR 25(72), 2024; D. B. Rubin, Using the SIR algorithm
to simulate posterior distributions, Bayesian Statistics 3, 1988).
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from sbi_models import seeding
from sbi_models.diagnostics import effective_sample_share, pareto_smoothed
from sbi_models.types import Array, FloatArray, Variables

LARGEST_K = 0.7
"""Largest tail index of the weights; above, no finite number of draws is enough (Vehtari et al.)."""

FEWEST_EFFECTIVE = 100
"""Fewest effective draws for which quantiles of a posterior mean something."""


@dataclass(frozen=True, kw_only=True)
class DrawsReport:
    """Report on the draws of one data set: what they are worth, and reasons for doubt.

    Attributes:
        effective_draws: number of independent draws that those made are worth.
        warnings: reasons for doubt, in words.
    """

    effective_draws: float
    warnings: tuple[str, ...] = ()

    @property
    def is_reliable(self) -> bool:
        """True if there are no warnings."""
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Resampled(NamedTuple):
    """Draws in proportion to weights, and what the weights are worth, for n data sets."""

    draws: Variables
    """Name to (n, num_samples, width), raw space."""

    effective: FloatArray
    """Effective number of draws by the smoothed weights (n,); 0 where all weights are 0."""

    pareto_k: FloatArray
    """Shape of the tail of the weights (n,); infinite where all weights are 0."""


def resampled(proposals: Variables, log_weights: FloatArray, num_samples: int, seed: int) -> Resampled:
    """Draws of proposals in proportion to their smoothed weights.

    Args:
        proposals: name to (n, S, width), raw space.
        log_weights: log weights (n, S), in nats, up to a constant of each data set.
        num_samples: draws for each data set; a proposal can come several times.
        seed: seed of the choice.
    """
    known = np.isfinite(log_weights.max(axis=1))
    smoothed = pareto_smoothed(np.where(known[:, None], log_weights, 0.0))
    chosen = [
        positions_by_weight(row, num_samples, seeding.generator(seed, "resampling", k))
        for k, row in enumerate(smoothed.log_weights)
    ]
    draws: Variables = {
        name: np.stack([values[k, rows] for k, rows in enumerate(chosen)])
        for name, values in proposals.items()
    }
    effective = effective_sample_share(smoothed.log_weights) * log_weights.shape[1]
    return Resampled(draws, np.where(known, effective, 0.0), np.where(known, smoothed.pareto_k, np.inf))


def positions_by_weight(log_weights: FloatArray, number: int, rng: np.random.Generator) -> Array:
    """Positions of draws in proportion to their log weights, by systematic resampling, in random order."""
    weights = (
        np.exp(log_weights - log_weights.max())
        if np.isfinite(log_weights.max())
        else np.ones(len(log_weights))
    )
    levels = (np.arange(number) + rng.uniform()) / number
    positions = np.searchsorted(np.cumsum(weights) / weights.sum(), levels)
    return rng.permutation(np.minimum(positions, len(weights) - 1))


def log_mean_weight(log_weights: FloatArray) -> FloatArray:
    """Log of the mean weight (n,) of log weights (n, S), in nats; -inf where all weights are 0."""
    top = log_weights.max(axis=1)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(top + np.log(np.exp(log_weights - top[:, None]).mean(axis=1)))
