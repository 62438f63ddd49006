"""Layers of several small networks of one architecture side by side: one product of matrices for all."""

import math

import torch
from torch import Tensor, nn


class GroupedLinear(nn.Module):
    """One linear map for each of g groups, (g, n, inputs) to (g, n, outputs).

    Weights start uniform, as PyTorch draws those of one, or at zero.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(groups, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """All groups."""
        return torch.baddbmm(self.bias, x, self.weight)

    def one(self, group: int, x: Tensor) -> Tensor:
        """One group alone: (..., inputs) to (..., outputs)."""
        return x @ self.weight[group] + self.bias[group, 0]


class GroupedResidual(nn.Module):
    """Residual blocks h + B silu(A silu(h)) of g groups, (g, n, width) to (g, n, width)."""

    def __init__(self, groups: int, width: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.inner = nn.ModuleList(GroupedLinear(groups, width, width) for _ in range(blocks))
        self.outer = nn.ModuleList(GroupedLinear(groups, width, width) for _ in range(blocks))

    def forward(self, h: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Output of all groups; `dropout`, (blocks, g, n, width), multiplies what is inside the blocks."""
        for k, (inner, outer) in enumerate(zip(self.inner, self.outer, strict=True)):
            inside = nn.functional.silu(inner(nn.functional.silu(h)))
            h = h + outer(inside if dropout is None else inside * dropout[k])
        return h

    def one(self, group: int, h: Tensor) -> Tensor:
        """One group alone, (..., width)."""
        for inner, outer in zip(self.inner, self.outer, strict=True):
            h = h + outer.one(group, nn.functional.silu(inner.one(group, nn.functional.silu(h))))  # type: ignore[operator]
        return h
