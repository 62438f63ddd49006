"""Summaries of sets.

A function of a set that does not depend on the order of its elements can be written as rho(pool(phi(x_1),
..., phi(x_n))): M. Zaheer et al., Deep Sets, NeurIPS 2017, arXiv:1703.06114.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sbi_models.networks.base import SummaryNetwork
from sbi_models.networks.layers import MLP, keep_scale
from sbi_models.networks.layers.masks import (
    SETS_ONLY,
    check_axes,
    log_count,
    log_spread_over,
    mean_over,
    without_padding,
)
from sbi_models.networks.registry import register


class EquivariantLayer(nn.Module):
    """Equivariant layer silu(A h_i + B mean(h)): each element and the mean of all.

    Centring, and so variances, are one such layer away.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.own = keep_scale(nn.Linear(in_dim, out_dim), silu=True, terms=2)
        self.others = keep_scale(nn.Linear(in_dim, out_dim, bias=False), silu=True, terms=2)

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """Features of elements (n, set_size, in_dim) to (n, set_size, out_dim)."""
        return nn.functional.silu(self.own(h) + self.others(mean_over(h, mask))[:, None, :])


@register("deep_set")
class DeepSet(SummaryNetwork):
    """Equivariant layers, a pooling of mean, spread and maximum over the elements, and an MLP.

    The mean carries moments, the log of the standard deviation carries scales, which a mean of nonlinear
    features only approximates, the maximum carries extremes, and the log of the number of elements, where it
    varies, tells how much evidence there is.

    Args:
        summary_dim: width of the summary.
        widths: widths of the equivariant layers.
        head_widths: hidden widths of the network after pooling.

    >>> network = DeepSet(summary_dim=4, widths=(16, 16))
    >>> network.build((20, 2))
    >>> tuple(network(torch.zeros(3, 20, 2)).shape)
    (3, 4)
    """

    def __init__(
        self,
        summary_dim: int = 16,
        widths: Sequence[int] = (64, 64, 64),
        head_widths: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self.summary_dim = summary_dim
        self.widths, self.head_widths = tuple(widths), tuple(head_widths)

    def takes_any_length(self, name: str | None = None) -> bool:
        """True."""
        del name
        return True

    def _build(self, input_shape: tuple[int, ...]) -> None:
        check_axes("DeepSet summarizes sets", input_shape, ("set_size", "features"), SETS_ONLY)
        sizes = (input_shape[1], *self.widths)
        self.layers = nn.ModuleList(EquivariantLayer(a, b) for a, b in pairwise(sizes))
        self.features = keep_scale(nn.Linear(self.widths[-1] + input_shape[1], self.widths[-1]), silu=False)
        self.head = MLP(3 * self.widths[-1] + 1, self.head_widths, self.summary_dim).keep_scale()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardized sets (n, set_size, features), mask (n, set_size), to summaries (n, summary_dim)."""
        x, mask = without_padding(x, mask)
        h = x
        for layer in self.layers:
            h = layer(h, mask)
        h = self.features(torch.cat([h, x], dim=-1))
        mean = mean_over(h, mask)
        seen = h if mask is None else h.masked_fill(~mask[..., None], torch.finfo(h.dtype).min)
        largest = nn.functional.softsign(seen.amax(dim=1))
        summary: Tensor = self.head(
            torch.cat([mean, log_spread_over(h, mask, mean), largest, log_count(h, mask)], dim=-1)
        )
        return summary
