"""Rules for point estimates: mean, median, quantiles.

T. Gneiting, Making and evaluating point forecasts, J. Am. Stat. Assoc. 106 (2011) 746, arXiv:0912.0902.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.functional import softplus

from sbi_models.errors import ConfigurationError
from sbi_models.networks.registry import register
from sbi_models.networks.scoring.rules import PointRule


@register("mean")
class MeanScore(PointRule):
    """Squared error, summed over components; lowest at the posterior mean."""

    def head_width(self, theta_dim: int) -> int:
        return theta_dim

    def predict(self, numbers: Tensor, theta_dim: int) -> Tensor:
        """The means (n, theta_dim) themselves."""
        del theta_dim
        return numbers

    def score(self, prediction: Tensor, theta: Tensor) -> Tensor:
        """Squared error of means and theta, both (n, width)."""
        return (prediction - theta).square().sum(dim=-1)


@register("median")
class MedianScore(MeanScore):
    """Absolute error, summed over components; lowest at the posterior median of each."""

    follows = "monotone"

    def score(self, prediction: Tensor, theta: Tensor) -> Tensor:
        """Absolute error of medians and theta, both (n, width)."""
        return (prediction - theta).abs().sum(dim=-1)


@register("quantile")
class QuantileScore(PointRule):
    """Quantiles of each component, by the pinball loss summed over levels and components.

    It is lowest at the posterior quantiles.

        score(q, theta) = max(level (theta - q), (level - 1) (theta - q))

    R. Koenker and G. Bassett, Regression quantiles, Econometrica 46 (1978) 33. The middle level is a number
    of the head, the others follow by positive gaps, so that quantiles never cross. Numbers of 0 give the
    quantiles of a standard normal.

    Args:
        levels: increasing, between 0 and 1.

    >>> from sbi_models.networks import ScoringRuleNetwork
    >>> network = ScoringRuleNetwork({"quantiles": QuantileScore((0.1, 0.5, 0.9))}, widths=(16, 16))
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> tuple(network.estimate(torch.zeros(5, 3))["quantiles"].shape)
    (5, 3, 2)
    """

    follows = "increasing"

    def __init__(self, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> None:
        super().__init__()
        listed = [levels] if isinstance(levels, int | float) else list(levels)
        if not listed or listed != sorted(set(listed)) or not 0 < listed[0] <= listed[-1] < 1:
            raise ConfigurationError(
                f"Expected increasing levels between 0 and 1, such as (0.05, 0.5, 0.95), got {levels!r}."
            )
        self.levels = tuple(float(level) for level in listed)

    def head_width(self, theta_dim: int) -> int:
        return len(self.levels) * theta_dim

    def predict(self, numbers: Tensor, theta_dim: int) -> Tensor:
        """Quantiles (n, levels, theta_dim), never falling along the levels."""
        numbers = numbers.reshape(len(numbers), len(self.levels), theta_dim)
        start = [NormalDist().inv_cdf(level) for level in self.levels]
        gaps = [math.log(math.expm1(b - a)) for a, b in pairwise(start)]  # softplus of these are the gaps
        above_first = softplus(numbers[:, 1:] + numbers.new_tensor(gaps)[:, None]).cumsum(dim=1)
        above_first = torch.cat([torch.zeros_like(numbers[:, :1]), above_first], dim=1)
        middle = len(self.levels) // 2
        return start[middle] + numbers[:, :1] + (above_first - above_first[:, middle : middle + 1])

    def score(self, prediction: Tensor, theta: Tensor) -> Tensor:
        """Pinball loss of quantiles (n, levels, width) at theta (n, width)."""
        levels = prediction.new_tensor(self.levels)[:, None]
        error = theta[:, None] - prediction
        return torch.maximum(levels * error, (levels - 1) * error).sum(dim=(1, 2))
