"""Time encoding: features of positions in a series and of observation times."""

import torch
from torch import Tensor, nn


class TimeEncoding(nn.Module):
    """u and the cosines and sines of learned multiples of u, for times u that span about one unit.

    S. M. Kazemi et al., Time2Vec: learning a vector representation of time, 2019, arXiv:1907.05321. The
    multiples start evenly spaced in their logarithm between half a turn over the whole series and a quarter
    of a turn over one step.
    """

    def __init__(self, length: int, frequencies: int = 8) -> None:
        super().__init__()
        slowest, fastest = torch.pi, torch.pi / 2 * max(length, 4)
        self.frequencies = nn.Parameter(torch.logspace(0, 1, frequencies, base=fastest / slowest) * slowest)
        self.dim = 1 + 2 * frequencies

    def forward(self, u: Tensor) -> Tensor:
        """Times (..., 1) to features (..., dim)."""
        angles = u * self.frequencies
        return torch.cat([u, angles.cos(), angles.sin()], dim=-1)
