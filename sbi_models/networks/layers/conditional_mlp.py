"""A residual network of parameters, time and conditions."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sbi_models.networks.layers.time_features import TimeFeatures


class ConditionalMLP(nn.Module):
    """Residual blocks whose input is a sum of linear maps of theta, time and conditions, which are added to every block again.

    The map of the conditions is a layer of its own: with conditions (n, 1, c) and theta (n, S, d) it is computed once a data set, not
    once a draw. The last layer starts at zero.
    """

    def __init__(self, theta_dim: int, condition_dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        width = widths[0]
        self.time = TimeFeatures()
        self.theta_in = nn.Linear(theta_dim, width)
        self.context_widths = list(widths)
        self.time_in = nn.Linear(self.time.dim, sum(widths), bias=False)
        self.condition_in = nn.Linear(condition_dim, sum(widths)) if condition_dim else None
        self.blocks = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(a) for a in widths[:-1])
        self.out = nn.Linear(widths[-1], theta_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, theta: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        """theta (..., theta_dim), t (..., 1) and conditions (..., condition_dim), broadcastable, to (..., theta_dim)."""
        context = self.time_in(self.time(t))
        if self.condition_in is not None:
            context = context + self.condition_in(conditions)
        first, *rest = torch.split(context, self.context_widths, dim=-1)
        h = nn.functional.silu(self.theta_in(theta) + first)
        for block, norm, shift in zip(self.blocks, self.norms, rest, strict=True):
            h = h + nn.functional.silu(block(norm(h)) + shift)
        out: Tensor = self.out(h)
        return out
