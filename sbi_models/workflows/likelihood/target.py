"""Target densities of Markov chains: prior and likelihood of many data sets, in unbounded space."""

import math
from abc import ABC, abstractmethod
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from sbi_models.approximators.element_likelihood import ElementLikelihood
from sbi_models.workflows.likelihood.prior import Prior

_FIRST_STAGE, _GROWTH = 16, 4
"""Least number of elements of the first stage, and the factor by which each further one makes them more."""


class Evaluation(NamedTuple):
    """Log densities in nats and gradients at points of n data sets, c chains and d coordinates.

    Attributes:
        base: log prior density plus the log likelihood of the elements of earlier stages, (n, c).
        likelihood: log likelihood of the elements of a stage, which is tempered, (n, c).
        base_slope, likelihood_slope: their gradients (n, c, d).
    """

    base: Tensor
    likelihood: Tensor
    base_slope: Tensor
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
        """Base plus `power` (n,) times log likelihood, (n, c), and its gradient (n, c, d)."""
        scale = power[:, None]
        value = self.base + torch.where(scale > 0, scale * self.likelihood, 0.0)
        return value, self.base_slope + scale[..., None] * self.likelihood_slope


class Target(ABC):
    """Density of parameters in unbounded space, of several data sets at once."""

    width: int

    def num_stages(self, rows: Tensor) -> Tensor:
        """Number of stages (n,) in which the elements of the data sets `rows` (n,) come in."""
        return torch.ones_like(rows)

    @abstractmethod
    def start(self, number: int, seed: int) -> Tensor:
        """Draws (number, d) of the prior."""

    @abstractmethod
    def __call__(self, z: Tensor, rows: Tensor, stages: Tensor, *, with_slopes: bool = True) -> Evaluation:
        """Evaluation at z (n, c, d), for the data sets with the numbers `rows` (n,), at their stages (n,).

        With `with_slopes=False` gradients may be anything.
        """


class PosteriorTarget(Target):
    """Prior times learned likelihood.

    Many elements come in stages, each of which has four times as many as all before it, so that most steps
    from the prior to the posterior evaluate few elements (N. Chopin, A sequential particle filter method for
    static models, Biometrika 89, 2002). Elements are in random order.

    Args:
        prior: the prior.
        likelihood: the learned likelihood of the data sets.
    """

    def __init__(self, prior: Prior, likelihood: ElementLikelihood) -> None:
        self.prior, self.likelihood, self.width = prior, copy(likelihood), prior.width
        self.likelihood.elements = likelihood.elements.in_random_order(0)

    def num_stages(self, rows: Tensor) -> Tensor:
        """Number of stages (n,)."""
        share = self.likelihood.sizes[rows].to(torch.float64) / _FIRST_STAGE
        return 1 + (share.clamp(min=1).log2() / math.log2(_GROWTH)).floor().to(torch.long)

    def _span(self, rows: Tensor, stages: Tensor) -> tuple[Tensor, Tensor]:
        """First element of a stage, and the one after the last, (n,) each."""
        size, left = self.likelihood.sizes[rows], self.num_stages(rows) - 1 - stages
        end = size // _GROWTH**left
        return torch.where(stages > 0, size // _GROWTH ** (left + 1), 0), end

    def start(self, number: int, seed: int) -> Tensor:
        """Draws (number, d) of the prior."""
        return self.prior.draw(number, seed)

    def __call__(self, z: Tensor, rows: Tensor, stages: Tensor, *, with_slopes: bool = True) -> Evaluation:
        """Evaluation at z (n, c, d)."""
        n, c, d = z.shape
        points = z.reshape(n * c, d).nan_to_num().detach().clone().requires_grad_(with_slopes)
        start, end = (part.repeat_interleave(c) for part in self._span(rows, stages))
        rows = rows.repeat_interleave(c)
        with torch.set_grad_enabled(with_slopes):
            raw = self.prior.raw(points)
            prior = self.prior.log_prob(raw) - self.prior.log_volume(raw)
        value, raw_slope = self.likelihood.of_a_part(raw, rows, (start, end), with_gradient=with_slopes)
        earlier, earlier_slope = torch.zeros_like(value), torch.zeros_like(raw_slope)
        (late,) = (start > 0).nonzero(as_tuple=True)
        if len(late):
            before = {name: part[late] for name, part in raw.items()}
            span = torch.zeros_like(late), start[late]
            earlier[late], earlier_slope[late] = self.likelihood.of_a_part(
                before, rows[late], span, with_gradient=with_slopes
            )
        base_slope = slope = torch.zeros_like(points)
        if with_slopes:
            fine = torch.where(prior.isfinite(), prior, 0.0)
            outputs = torch.cat(list(raw.values()), dim=1)
            (slope,) = torch.autograd.grad(outputs, points, grad_outputs=raw_slope, retain_graph=True)
            (base_slope,) = torch.autograd.grad(
                [fine.sum(), outputs], points, grad_outputs=[torch.ones_like(fine.sum()), earlier_slope]
            )
        base = torch.where(prior.isfinite(), prior.detach(), -torch.inf) + earlier
        base_slope, slope = (torch.where(part.isfinite(), part, 0.0) for part in (base_slope, slope))
        return Evaluation(
            base.reshape(n, c),
            value.reshape(n, c),
            base_slope.reshape(n, c, d),
            slope.reshape(n, c, d),
        )
