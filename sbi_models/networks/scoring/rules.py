"""Base classes of scoring rules.

A scoring rule gives a prediction a loss whose expectation is lowest where the prediction is true: the mean
for squared error, the whole density for its negative logarithm. T. Gneiting and A. E. Raftery, Strictly
proper scoring rules, prediction, and estimation, J. Am. Stat. Assoc. 102 (2007) 359.

To write a rule: subclass `PointRule` (an estimate of each parameter) or `ParametricRule` (a density),
decorate it with `@register("name")` of `sbi_models.networks`, and implement the abstract methods. The
constructor is the configuration, as for every `Network`. A rule has no weights: its head gives it numbers,
any reals, which `predict` turns into a prediction. Numbers of 0 should predict something sensible in
standardized space, such as a standard normal density, since that is where a network begins.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor

from sbi_models.networks.base import Network
from sbi_models.networks.noise import Generators


class ScoringRule(Network, ABC):
    """A head of a `ScoringRuleNetwork`: how its numbers become a prediction, and how that is scored."""

    @abstractmethod
    def head_width(self, theta_dim: int) -> int:
        """Number of outputs that this rule needs of the head, for theta of width `theta_dim`."""

    @abstractmethod
    def predict(self, numbers: Tensor, theta_dim: int) -> Any:
        """Numbers of the head (n, head_width), any reals, to what `score` takes."""

    @abstractmethod
    def score(self, prediction: Any, theta: Tensor) -> Tensor:
        """Loss of each row, (n,), at theta (n, width); the right prediction has the lowest mean."""


class PointRule(ScoringRule):
    """Estimates something of each component of theta: `predict` gives a tensor (n, ..., theta_dim)."""

    follows: ClassVar[Literal["monotone", "increasing"] | None] = None
    """Maps that the estimate follows, where they act on each component by itself: the median of log sigma is
    the log of the median.

    An approximator scores such an estimate in standardized space and refuses adapters that are not of this
    kind. None: the estimate follows affine maps only, like a mean; then it is taken to raw space and scored
    there, and is right for every adapter. Its score must not depend on the scale of a component but by a
    factor, and must take any number of components.
    """


class ParametricRule(ScoringRule):
    """A density of theta, scored by its negative logarithm; `predict` gives tensors (n, ...) by name."""

    def score(self, prediction: dict[str, Tensor], theta: Tensor) -> Tensor:
        """Negative log density in nats (the logarithmic score, which is strictly proper), shape (n,)."""
        return -self.log_prob(prediction, theta)

    @abstractmethod
    def log_prob(self, prediction: dict[str, Tensor], theta: Tensor) -> Tensor:
        """Log density in nats at standardized theta (n, theta_dim), shape (n,)."""

    @abstractmethod
    def sample(self, num_samples: int, prediction: dict[str, Tensor], generator: Generators = None) -> Tensor:
        """Standardized draws (n, num_samples, theta_dim); a generator for all rows or one each."""

    @abstractmethod
    def estimates(self, prediction: dict[str, Tensor], shift: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """Estimates, such as means, (n, ...) each, of shift + scale * theta; both (theta_dim,)."""
