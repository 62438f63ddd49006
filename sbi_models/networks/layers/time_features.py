"""Smooth features of a time in [0, 1]."""

import torch
from torch import Tensor, nn


class TimeFeatures(nn.Module):
    """Time features: t and the cosines and sines of k pi t, k = 1..frequencies, all low.

    They are for fields that vary slowly in time.
    """

    frequencies: Tensor

    def __init__(self, frequencies: int = 6) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * torch.arange(1, frequencies + 1), persistent=False)
        self.dim = 1 + 2 * frequencies

    def forward(self, t: Tensor) -> Tensor:
        """Times (..., 1) to features (..., dim)."""
        angles = t * self.frequencies
        return torch.cat([t, angles.cos(), angles.sin()], dim=-1)
