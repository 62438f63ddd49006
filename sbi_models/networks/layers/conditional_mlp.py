"""Subnets of parameters, conditions and, where there is one, time: residual blocks and a plain MLP."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError
from sbi_models.networks.layers.mlp import MLP
from sbi_models.networks.layers.subnets import register_subnet
from sbi_models.networks.layers.time_features import TimeFeatures


@register_subnet("residual")
class ConditionalMLP(nn.Module):
    """Residual blocks of x, to each of which linear maps of time and conditions are added.

    The map of the conditions is a layer of its own: with conditions (n, 1, c) and x (n, S, d) it is computed
    once a data set, not once a draw. The last layer starts at zero.
    """

    def __init__(
        self, in_dim: int, out_dim: int, condition_dim: int, widths: Sequence[int], *, has_time: bool
    ) -> None:
        super().__init__()
        if len(set(widths)) != 1:
            raise ConfigurationError(
                f"Expected one or more equal widths, for residual blocks, got {tuple(widths)}. Pass for "
                "instance (128, 128), or subnet='mlp'."
            )
        self.context_widths = list(widths)
        self.x_in = nn.Linear(in_dim, widths[0])
        self.time = TimeFeatures() if has_time else None
        self.time_in = nn.Linear(TimeFeatures().dim, sum(widths), bias=False) if has_time else None
        self.condition_in = nn.Linear(condition_dim, sum(widths)) if condition_dim else None
        self.blocks = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(a) for a in widths[:-1])
        self.out = _zero(nn.Linear(widths[-1], out_dim))

    def forward(self, x: Tensor, conditions: Tensor, t: Tensor | None = None) -> Tensor:
        """Output (..., out_dim) for x (..., in_dim), conditions (..., condition_dim) and t (..., 1).

        The leading axes are broadcast.
        """
        context = self._context(conditions, t)
        h = self.x_in(x)
        if context is None:
            rest: Sequence[Tensor | float] = [0.0] * len(self.blocks)
        else:
            first, *rest = torch.split(context, self.context_widths, dim=-1)
            h = h + first
        h = nn.functional.silu(h)
        for block, norm, shift in zip(self.blocks, self.norms, rest, strict=True):
            h = h + nn.functional.silu(block(norm(h)) + shift)
        out: Tensor = self.out(h)
        return out

    def _context(self, conditions: Tensor, t: Tensor | None) -> Tensor | None:
        """Terms (..., sum of widths) that time and conditions add to the blocks."""
        parts = []
        if self.time is not None and self.time_in is not None:
            assert t is not None
            parts.append(self.time_in(self.time(t)))
        if self.condition_in is not None:
            parts.append(self.condition_in(conditions))
        return sum(parts[1:], parts[0]) if parts else None


@register_subnet("mlp")
class ConcatenatingMLP(nn.Module):
    """MLP of x, conditions and time side by side; widths may differ, and the last layer starts at zero."""

    def __init__(
        self, in_dim: int, out_dim: int, condition_dim: int, widths: Sequence[int], *, has_time: bool
    ) -> None:
        super().__init__()
        self.time = TimeFeatures() if has_time else None
        self.mlp = MLP(in_dim + condition_dim + (TimeFeatures().dim if has_time else 0), widths, out_dim)
        _zero(self.mlp.layers[-1])

    def forward(self, x: Tensor, conditions: Tensor, t: Tensor | None = None) -> Tensor:
        """Output (..., out_dim) for x (..., in_dim), conditions (..., condition_dim) and t (..., 1).

        The leading axes are broadcast.
        """
        parts = [x, conditions]
        if self.time is not None:
            assert t is not None
            parts.append(self.time(t))
        lead = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))  # type: ignore[no-untyped-call]
        out: Tensor = self.mlp(torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], dim=-1))
        return out


def _zero(layer: nn.Module) -> nn.Module:
    """The linear layer with weights and biases of zero."""
    assert isinstance(layer, nn.Linear)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
