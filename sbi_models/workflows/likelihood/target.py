"""Target densities of Markov chains: prior and likelihood of many data sets, in unbounded space."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from sbi_models.approximators.element_likelihood import ElementLikelihood
from sbi_models.workflows.likelihood.prior import Prior


class Evaluation(NamedTuple):
    """Log densities in nats and gradients at points of n data sets, c chains and d coordinates.

    Attributes:
        prior: log prior density (n, c).
        likelihood: log likelihood (n, c).
        prior_slope, likelihood_slope: their gradients (n, c, d).
    """

    prior: Tensor
    likelihood: Tensor
    prior_slope: Tensor
    likelihood_slope: Tensor

    def chosen(self, which: Tensor, other: "Evaluation") -> "Evaluation":
        """The other one where `which` (n, c) is True."""
        return Evaluation(
            *(
                torch.where(which if old.ndim == which.ndim else which[..., None], new, old)
                for old, new in zip(self, other, strict=True)
            )
        )

    def rows(self, index: Tensor) -> "Evaluation":
        """Those of some data sets."""
        return Evaluation(*(part[index] for part in self))

    def updated(self, index: Tensor, other: "Evaluation") -> "Evaluation":
        """With those of some data sets replaced."""
        return Evaluation(*(old.index_copy(0, index, new) for old, new in zip(self, other, strict=True)))

    def taken(self, positions: Tensor) -> "Evaluation":
        """Those of chains at positions (n, c) of each data set."""
        return Evaluation(
            *(
                part.gather(1, positions)
                if part.ndim == positions.ndim
                else part.gather(1, positions[..., None].expand_as(part))
                for part in self
            )
        )

    def tempered(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Log prior plus `power` (n,) times log likelihood, (n, c), and its gradient (n, c, d)."""
        scale = power[:, None]
        value = self.prior + torch.where(scale > 0, scale * self.likelihood, 0.0)
        return value, self.prior_slope + scale[..., None] * self.likelihood_slope


class Target(ABC):
    """Density of parameters in unbounded space, of several data sets at once."""

    width: int

    @abstractmethod
    def start(self, number: int, seed: int) -> Tensor:
        """Draws (number, d) of the prior."""

    @abstractmethod
    def __call__(self, z: Tensor, rows: Tensor) -> Evaluation:
        """Evaluation at z (n, c, d), for the data sets with the numbers `rows` (n,)."""


class PosteriorTarget(Target):
    """Prior times learned likelihood.

    Args:
        prior: the prior.
        likelihood: the learned likelihood of the data sets.
    """

    def __init__(self, prior: Prior, likelihood: ElementLikelihood) -> None:
        self.prior, self.likelihood, self.width = prior, likelihood, prior.width

    def start(self, number: int, seed: int) -> Tensor:
        """Draws (number, d) of the prior."""
        return self.prior.draw(number, seed)

    def __call__(self, z: Tensor, rows: Tensor) -> Evaluation:
        """Evaluation at z (n, c, d)."""
        n, c, d = z.shape
        points = z.reshape(n * c, d).nan_to_num()
        with torch.enable_grad():
            points = points.detach().clone().requires_grad_()
            raw = self.prior.raw(points)
            prior = self.prior.log_prob(raw) - self.prior.log_volume(raw)
            (prior_slope,) = torch.autograd.grad(
                torch.where(prior.isfinite(), prior, 0.0).sum(), points, retain_graph=True
            )
            value, raw_slope = self.likelihood.with_gradient(raw, rows.repeat_interleave(c))
            (slope,) = torch.autograd.grad(
                torch.cat(list(raw.values()), dim=1), points, grad_outputs=raw_slope
            )
        prior = torch.where(prior.isfinite(), prior.detach(), -torch.inf)
        prior_slope, slope = (torch.where(part.isfinite(), part, 0.0) for part in (prior_slope, slope))
        return Evaluation(
            prior.reshape(n, c),
            value.reshape(n, c),
            prior_slope.reshape(n, c, d),
            slope.reshape(n, c, d),
        )
