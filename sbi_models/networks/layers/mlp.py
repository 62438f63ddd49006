"""A plain multilayer perceptron, and initial weights that keep the scale of what passes through."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn

_SILU_GAIN = 1.5588
"""Standard deviation of a normal z, around zero, for which silu(z) has a root mean square of 1."""


def keep_scale(layer: nn.Linear, *, silu: bool, terms: int = 1) -> nn.Linear:
    """The layer, with PyTorch's initial weights scaled so that inputs of unit scale give outputs of it.

    PyTorch's weights have variance 1 / (3 in_features), so that every layer makes the scale smaller, by
    0.58, and by 0.3 with a SiLU.

    Args:
        layer: layer just made.
        silu: whether a SiLU follows.
        terms: layers whose outputs are added.
    """
    with torch.no_grad():
        layer.weight.mul_((_SILU_GAIN if silu else 1.0) * math.sqrt(3 / terms))
    return layer


class MLP(nn.Module):
    """Linear layers with SiLU between them: (..., in_dim) to (..., out_dim)."""

    def __init__(self, in_dim: int, widths: Sequence[int], out_dim: int) -> None:
        super().__init__()
        sizes = [in_dim, *widths]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], out_dim))

    def keep_scale(self) -> Self:
        """Itself, with the initial weights of `keep_scale`."""
        *hidden, last = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        for layer in hidden:
            keep_scale(layer, silu=True)
        keep_scale(last, silu=False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) to (..., out_dim)."""
        y: Tensor = self.layers(x)
        return y
