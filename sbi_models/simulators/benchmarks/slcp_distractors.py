"""SLCP with distractors: the eight informative numbers of SLCP at fixed places among 92 uninformative ones.

The distractors are draws from a mixture of 20 multivariate t distributions with 2 degrees of freedom, of
equal weights. Locations, scales and the places of all 100 numbers are those of sbibm, drawn anew here from
its seed (NumPy's legacy generator, 42) in its order.

Source: task T.4 of J.-M. Lueckmann et al., Benchmarking simulation-based inference, AISTATS 2021 (sbibm
1.1.0).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from sbi_models.simulators.benchmarks.base import BoxPrior
from sbi_models.simulators.benchmarks.slcp import SLCP
from sbi_models.types import Array, FloatArray, Variables

_COMPONENTS, _DISTRACTORS, _FREEDOM = 20, 92, 2


@cache
def _constants() -> tuple[FloatArray, FloatArray, Array]:
    """Locations (20, 92), scale matrices (20, 92, 92), and order of the numbers in x (100,)."""
    legacy = np.random.RandomState(42)
    locations = np.stack([15 * legacy.normal(size=_DISTRACTORS) for _ in range(_COMPONENTS)])
    scales = np.empty((_COMPONENTS, _DISTRACTORS, _DISTRACTORS))
    for scale in scales:
        below = np.tril(legacy.normal(size=(_DISTRACTORS, _DISTRACTORS)))
        scale[:] = 3 * (below + np.diag(np.exp(legacy.normal(size=_DISTRACTORS))))
    return locations, scales, legacy.permutation(_DISTRACTORS + 8)


@dataclass(frozen=True)
class SLCPDistractors(BoxPrior):
    """SLCP with 92 distractors; the posterior is that of SLCP given the informative numbers."""

    @property
    def names(self) -> tuple[str, ...]:
        """theta_1 to theta_5."""
        return SLCP().names

    @property
    def lower(self) -> FloatArray:
        """-3, shape (5,)."""
        return SLCP().lower

    @property
    def upper(self) -> FloatArray:
        """3, shape (5,)."""
        return SLCP().upper

    @property
    def x_shape(self) -> tuple[int, ...]:
        """(100,)."""
        return (100,)

    def likelihood(self, theta: Array, rng: np.random.Generator) -> Variables:
        """x, shape (n, 100), raw space, given theta of shape (n, 5)."""
        locations, scales, order = _constants()
        component = rng.integers(_COMPONENTS, size=len(theta))
        noise = rng.normal(size=(len(theta), _DISTRACTORS)) * np.sqrt(
            _FREEDOM / rng.chisquare(_FREEDOM, size=(len(theta), 1))
        )
        for k in np.unique(component):
            noise[component == k] = noise[component == k] @ scales[k].T + locations[k]
        return {"x": np.concatenate([SLCP().likelihood(theta, rng)["x"], noise], axis=1)[:, order]}

    def informative(self, x: Array) -> FloatArray:
        """The eight numbers of SLCP in x: shape (..., 8) from shape (..., 100)."""
        return np.asarray(x, dtype=float)[..., np.argsort(_constants()[2])[:8]]

    def log_likelihood(self, theta: Array, x: Array) -> FloatArray:
        """log p(x | theta) in nats for theta of shape (..., 5) and x of shape (..., 100); shape (...).

        It lacks the log density of the distractors, which does not depend on theta. (Their scale matrices are
        so near to singular that rounding x to single precision changes that density by a thousand nats and
        more.)
        """
        return SLCP().log_likelihood(theta, self.informative(x))
