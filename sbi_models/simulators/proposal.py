"""Simulations near one observation: a simulator whose prior is a normal around posterior draws, several times
as wide.

A posterior that is much narrower than its prior is learned from few of the simulations of that prior. Those
whose parameters are drawn around a first, rough posterior are all of use, and a network that has learned from
them gives the posterior under that narrower prior, from which the weights of importance sampling lead to the
exact one. So a second round of simulations serves one observation alone.

Rounds of simulation: G. Papamakarios, I. Murray, Fast epsilon-free inference of simulation models with
Bayesian conditional density estimation, NeurIPS 2016, arXiv:1605.06376; M. Deistler, P. J. Goncalves, J. H.
Macke, Truncated proposals for scalable and hassle-free simulation-based inference, NeurIPS 2022,
arXiv:2210.04815.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_models.errors import ConfigurationError, DataError
from sbi_models.simulators.simulator import Simulator
from sbi_models.types import Array, FloatArray, Variables

_FEWEST_DRAWS = 100
_WITHIN = 1e-9
"""Share of a box, at each of its sides, that draws stay away from."""


@dataclass(frozen=True)
class NarrowPrior:
    """A normal of the parameters in an unbounded space: their logarithm where they have one bound, their
    logit where they have two.

    Attributes:
        widths: components of each variable, in order; all of them, one after the other, are the d components
            below.
        mean: (d,), unbounded space.
        covariance: (d, d), unbounded space.
        lower: (d,), raw space, -inf without a bound.
        upper: (d,), raw space, inf without a bound.
    """

    widths: Mapping[str, int]
    mean: FloatArray
    covariance: FloatArray
    lower: FloatArray
    upper: FloatArray

    @classmethod
    def around(cls, draws: Variables, lower: Array, upper: Array, widening: float) -> "NarrowPrior":
        """The prior whose sds are `widening` times those of posterior draws.

        Args:
            draws: variables (n, width), raw space; those outside the bounds are left out.
            lower: bounds of all components, (d,), raw space, -inf for none.
            upper: likewise, inf for none.
            widening: above 1, since the posterior that is to be found must lie well within.

        Raises:
            ConfigurationError: if the widening is not above 1.
            DataError: if fewer than 100 draws are finite and within the bounds.
        """
        if not 1 < widening < np.inf:
            raise ConfigurationError(
                f"Expected a widening above 1, got {widening}. Take 3, for a prior three times as wide."
            )
        values = np.concatenate([np.asarray(value, dtype=float) for value in draws.values()], axis=1)
        lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
        fine = values[(np.isfinite(values) & (values > lower) & (values < upper)).all(axis=1)]
        if len(fine) < _FEWEST_DRAWS:
            raise DataError(
                f"Expected {_FEWEST_DRAWS} finite draws within the bounds of the prior at least, "
                f"got {len(fine)}. Draw more."
            )
        widths = {name: value.shape[1] for name, value in draws.items()}
        unbounded = _unbounded(fine, lower, upper)
        return cls(
            widths, unbounded.mean(axis=0), np.atleast_2d(np.cov(unbounded.T)) * widening**2, lower, upper
        )

    def __call__(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """Parameters (batch_size, width) by name, raw space."""
        values = _raw(
            rng.multivariate_normal(self.mean, self.covariance, size=batch_size, method="cholesky"),
            self.lower,
            self.upper,
        )
        ends = np.cumsum(list(self.widths.values()))[:-1]
        return dict(zip(self.widths, np.split(values, ends, axis=1), strict=True))

    def central_intervals(self) -> FloatArray:
        """The central 95 % of each component, (d, 2), raw space."""
        reach = 1.96 * np.sqrt(np.diag(self.covariance))
        ends = np.stack(
            [_raw((self.mean + sign * reach)[None], self.lower, self.upper)[0] for sign in (-1, 1)], axis=1
        )
        return np.sort(ends, axis=1)

    def as_json(self) -> dict[str, Any]:
        """Numbers and lists, for `from_json`; infinite bounds are None."""
        bounds = {
            name: [float(b) if np.isfinite(b) else None for b in getattr(self, name)]
            for name in ("lower", "upper")
        }
        return {
            "widths": dict(self.widths),
            "mean": self.mean.tolist(),
            "covariance": self.covariance.tolist(),
            **bounds,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "NarrowPrior":
        """The prior that `as_json` has described."""
        lower, upper = (
            np.array([none if b is None else b for b in content[name]])
            for name, none in (("lower", -np.inf), ("upper", np.inf))
        )
        return cls(
            dict(content["widths"]), np.array(content["mean"]), np.array(content["covariance"]), lower, upper
        )


@dataclass(frozen=True)
class _EachRow:
    """The draw of a single simulation."""

    prior: NarrowPrior

    def __call__(self, rng: np.random.Generator) -> Variables:
        """Parameters (width,) by name, raw space."""
        return {name: values[0] for name, values in self.prior(1, rng).items()}


class NarrowedSimulator(Simulator):
    """A simulator with a narrower prior in the place of its first functions, which draw the parameters and
    nothing else.

    Its `log_joint` is that of the simulator it was made of: draws that are weighted by it are those under the
    prior of that one.

    Args:
        original: the simulator.
        prior: prior in the place of its first functions.

    Raises:
        ConfigurationError: if no first functions draw the parameters of the prior alone, or there is a
            `meta_fn`.
    """

    def __init__(self, original: Simulator, prior: NarrowPrior) -> None:
        if original.meta is not None:
            raise ConfigurationError(
                "Expected a simulator without meta_fn to narrow the prior of, got one with it."
            )
        number = functions_that_draw(original, prior.widths)
        kept = [call.function for call in original.calls[number:]]
        first = prior if original.is_batched else _EachRow(prior)
        super().__init__(
            [first, *kept],
            is_batched=original.is_batched,
            block_size=original.block_size,
            failures=original.failures,
        )
        self.original, self.prior, self.made_at = original, prior, original.made_at

    @property
    def log_joint(self) -> Callable[..., Any] | None:
        """That of the original simulator."""
        return self.original.log_joint


def functions_that_draw(simulator: Simulator, widths: Mapping[str, int]) -> int:
    """How many first functions of a simulator draw parameters of these names and widths, and nothing else."""
    drawn: dict[str, int] = {}
    for number in range(1, len(simulator.calls) + 1):
        part = simulator.first(number).sample(1, seed=0, progress=False)
        drawn = {name: int(value[0].size) for name, value in part.items() if value.ndim == 2}
        if set(part) >= set(widths):
            break
    if drawn != dict(widths):
        raise ConfigurationError(
            f"Expected a simulator whose first functions draw {_listed(widths)} alone, each of shape (n, "
            f"width), got {_listed(drawn)}. Infer all that they draw, or draw what is left in a later "
            "function."
        )
    return number


def _listed(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({width})" for name, width in widths.items()) or "nothing"


def _unbounded(values: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Values within bounds, (n, d), as any numbers."""
    below, above, both = _kinds(lower, upper)
    out = values.copy()
    out[:, below] = np.log(values[:, below] - lower[below])
    out[:, above] = np.log(upper[above] - values[:, above])
    share = (values[:, both] - lower[both]) / (upper[both] - lower[both])
    share = np.clip(share, _WITHIN, 1 - _WITHIN)
    out[:, both] = np.log(share) - np.log1p(-share)
    return out


def _raw(values: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """The inverse of `_unbounded`."""
    below, above, both = _kinds(lower, upper)
    out = values.copy()
    out[:, below] = lower[below] + np.exp(values[:, below])
    out[:, above] = upper[above] - np.exp(values[:, above])
    share = np.clip(1 / (1 + np.exp(-values[:, both])), _WITHIN, 1 - _WITHIN)
    out[:, both] = lower[both] + share * (upper[both] - lower[both])
    return out


def _kinds(lower: FloatArray, upper: FloatArray) -> tuple[Array, Array, Array]:
    """Which components have a bound below alone, above alone, and both."""
    low, high = np.isfinite(lower), np.isfinite(upper)
    return low & ~high, high & ~low, low & high
