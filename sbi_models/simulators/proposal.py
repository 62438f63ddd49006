"""Normal proposals for sequential inference: simulations near one observation, with an adjusted prior.

A posterior that is much narrower than its prior is learned from few of the prior's simulations. Simulations
whose parameters are drawn around a first, rough posterior are all useful, and a network that learned from
them gives the posterior under that proposal, from which importance weights lead to the exact one. So a second
round of simulations serves one observation alone.

Sequential proposals: G. Papamakarios, I. Murray, Fast epsilon-free inference of simulation models with
Bayesian conditional density estimation, NeurIPS 2016, arXiv:1605.06376. Truncated proposals: M. Deistler, P.
J. Goncalves, J. H. Macke, Truncated proposals for scalable and hassle-free simulation-based inference,
NeurIPS 2022, arXiv:2210.04815.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_models.errors import ConfigurationError, DataError
from sbi_models.simulators.simulator import Simulator
from sbi_models.types import Array, FloatArray, Variables

_FEWEST_DRAWS = 100
_MARGIN = 1e-9
"""Smallest distance of draws from each bound, as a share of the interval between two bounds."""


@dataclass(frozen=True)
class NormalProposal:
    """Normal distribution of the parameters in an unbounded space.

    Components with one bound are on a log scale, those with two on a logit scale.

    Attributes:
        widths: components of each variable, in order; all of them, one after the other, are the d components
            below.
        mean: (d,), unbounded space.
        covariance: (d, d), unbounded space.
        lower: (d,), raw space, -inf without a bound.
        upper: (d,), raw space, inf without a bound.

    >>> draws = {"rate": np.random.default_rng(1).lognormal(0.0, 0.1, size=(1000, 1))}
    >>> proposal = NormalProposal.around(draws, np.array([0.0]), np.array([np.inf]), widening=3.0)
    >>> proposal.central_intervals().round(1).tolist()
    [[0.6, 1.8]]
    """

    widths: Mapping[str, int]
    mean: FloatArray
    covariance: FloatArray
    lower: FloatArray
    upper: FloatArray

    @classmethod
    def around(cls, draws: Variables, lower: Array, upper: Array, widening: float) -> "NormalProposal":
        """Proposal whose sds are `widening` times those of posterior draws, in the unbounded space.

        Args:
            draws: posterior draws by variable, (n, width), raw space; draws outside the bounds are ignored.
            lower: lower bounds of all components, (d,), raw space, -inf for none.
            upper: upper bounds of all components, (d,), raw space, inf for none.
            widening: factor above 1, so that the posterior lies well within the proposal.

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
        inside = values[(np.isfinite(values) & (values > lower) & (values < upper)).all(axis=1)]
        if len(inside) < _FEWEST_DRAWS:
            raise DataError(
                f"Expected {_FEWEST_DRAWS} finite draws within the bounds of the prior at least, "
                f"got {len(inside)}. Draw more."
            )
        widths = {name: value.shape[1] for name, value in draws.items()}
        unbounded = _unbounded(inside, lower, upper)
        return cls(
            widths, unbounded.mean(axis=0), np.atleast_2d(np.cov(unbounded.T)) * widening**2, lower, upper
        )

    def __call__(self, batch_size: int, rng: np.random.Generator) -> Variables:
        """Draw parameters (batch_size, width) by name, raw space."""
        values = _raw(
            rng.multivariate_normal(self.mean, self.covariance, size=batch_size, method="cholesky"),
            self.lower,
            self.upper,
        )
        ends = np.cumsum(list(self.widths.values()))[:-1]
        return dict(zip(self.widths, np.split(values, ends, axis=1), strict=True))

    def central_intervals(self) -> FloatArray:
        """Central 95 % interval of each component, (d, 2), raw space."""
        reach = 1.96 * np.sqrt(np.diag(self.covariance))
        ends = np.stack(
            [_raw((self.mean + sign * reach)[None], self.lower, self.upper)[0] for sign in (-1, 1)], axis=1
        )
        return np.sort(ends, axis=1)

    def as_json(self) -> dict[str, Any]:
        """JSON content for `from_json`; infinite bounds are None."""
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
    def from_json(cls, content: Mapping[str, Any]) -> "NormalProposal":
        """Proposal from the content of `as_json`."""
        lower, upper = (
            np.array([none if b is None else b for b in content[name]])
            for name, none in (("lower", -np.inf), ("upper", np.inf))
        )
        return cls(
            dict(content["widths"]), np.array(content["mean"]), np.array(content["covariance"]), lower, upper
        )


@dataclass(frozen=True)
class _SingleDraw:
    """Proposal as the unbatched first function of a simulator."""

    proposal: NormalProposal

    def __call__(self, rng: np.random.Generator) -> Variables:
        """Draw parameters (width,) by name, raw space."""
        return {name: values[0] for name, values in self.proposal(1, rng).items()}


class SimulatorWithProposal(Simulator):
    """Simulator with a proposal in the place of the first functions, which draw the parameters alone.

    Its `log_joint` is that of the original simulator, so that importance weights lead to the posterior under
    the original prior.

    Args:
        original: simulator whose prior is replaced.
        prior: proposal in the place of its first functions.

    Raises:
        ConfigurationError: if no first functions draw the parameters of the prior alone, or there is a
            `meta_fn`.

    >>> from sbi_models.simulators.benchmarks import GaussianLinear
    >>> model = GaussianLinear()
    >>> draws = {"theta": np.random.default_rng(1).normal(0.5, 0.1, size=(1000, 10))}
    >>> free = np.full(10, np.inf)
    >>> near = SimulatorWithProposal(model.simulator, NormalProposal.around(draws, -free, free, widening=3.0))
    >>> round(float(near.sample(1000, seed=1)["theta"].mean()), 1)
    0.5
    """

    def __init__(self, original: Simulator, prior: NormalProposal) -> None:
        if original.meta is not None:
            raise ConfigurationError(
                "Expected a simulator without meta_fn to narrow the prior of, got one with it."
            )
        number = functions_that_draw(original, prior.widths)
        likelihood = [call.function for call in original.calls[number:]]
        first = prior if original.is_batched else _SingleDraw(prior)
        super().__init__(
            [first, *likelihood],
            is_batched=original.is_batched,
            block_size=original.block_size,
            failures=original.failures,
        )
        self.original, self.prior, self.made_at = original, prior, original.made_at

    @property
    def log_joint(self) -> Callable[..., Any] | None:
        """Log joint density of the original simulator."""
        return self.original.log_joint


def functions_that_draw(simulator: Simulator, widths: Mapping[str, int]) -> int:
    """Number of first functions that draw parameters of these names and widths, and nothing else."""
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
    """Map values within bounds, (n, d), to the unbounded space."""
    below, above, both = _kinds(lower, upper)
    out = values.copy()
    out[:, below] = np.log(values[:, below] - lower[below])
    out[:, above] = np.log(upper[above] - values[:, above])
    share = (values[:, both] - lower[both]) / (upper[both] - lower[both])
    share = np.clip(share, _MARGIN, 1 - _MARGIN)
    out[:, both] = np.log(share) - np.log1p(-share)
    return out


def _raw(values: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Inverse of `_unbounded`."""
    below, above, both = _kinds(lower, upper)
    out = values.copy()
    out[:, below] = lower[below] + np.exp(values[:, below])
    out[:, above] = upper[above] - np.exp(values[:, above])
    share = np.clip(1 / (1 + np.exp(-values[:, both])), _MARGIN, 1 - _MARGIN)
    out[:, both] = lower[both] + share * (upper[both] - lower[both])
    return out


def _kinds(lower: FloatArray, upper: FloatArray) -> tuple[Array, Array, Array]:
    """Masks of components with a lower bound alone, an upper bound alone, and both."""
    low, high = np.isfinite(lower), np.isfinite(upper)
    return low & ~high, high & ~low, low & high
