"""Summaries of time series by convolutions, which see local patterns, and recurrence, which remembers.

K. Cho et al., Learning phrase representations using RNN encoder-decoder for statistical machine translation,
EMNLP 2014, arXiv:1406.1078; the pair of both for simulation-based inference: Y. Zhang and L. Mikelsons,
Solving stochastic inverse problems with stochastic BayesFlow, AIM 2023.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import SummaryNetwork
from sbi_models.networks.layers import MLP
from sbi_models.networks.layers.masks import (
    check_axes,
    log_count,
    log_spread_over,
    mean_over,
    without_padding,
)
from sbi_models.networks.registry import register


@register("time_series_network")
class TimeSeriesNetwork(SummaryNetwork):
    """Convolutions over time, a gated recurrent unit, and an MLP of its states.

    The MLP takes the last states, and the mean and spread of all.

    Steps that a mask leaves out are skipped: the rest is read as if it had been recorded without a gap. Where
    gaps tell something, give the time as a feature, or use `TimeSeriesTransformer`.

    Args:
        summary_dim: width of the summary.
        widths: widths of the convolutions; () for none.
        kernel_size: steps that a convolution sees at once, an odd number.
        stride: stride of each convolution; 2 halves the length each time, for long series.
        hidden_dim: width of the state of the recurrent unit, in each direction.
        bidirectional: read the series backwards too.
        head_widths: hidden widths of the network after the recurrence.

    >>> network = TimeSeriesNetwork(summary_dim=4, widths=(8,), hidden_dim=8)
    >>> network.build((20, 2))
    >>> tuple(network(torch.zeros(3, 20, 2)).shape)
    (3, 4)
    """

    def __init__(
        self,
        summary_dim: int = 16,
        widths: Sequence[int] = (32, 32),
        kernel_size: int = 3,
        stride: int = 1,
        *,
        hidden_dim: int = 32,
        bidirectional: bool = True,
        head_widths: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        if (
            min(summary_dim, *widths, kernel_size, stride, hidden_dim) < 1
            or kernel_size % 2 == 0
            or stride > kernel_size
        ):
            raise ConfigurationError(
                "Expected summary_dim, widths, stride and hidden_dim of at least 1, and an odd "
                f"kernel_size, not below the stride; got kernel_size={kernel_size}, stride={stride}."
            )
        self.summary_dim = summary_dim
        self.widths, self.kernel_size, self.stride = tuple(widths), kernel_size, stride
        self.hidden_dim, self.bidirectional, self.head_widths = hidden_dim, bidirectional, tuple(head_widths)

    def takes_any_length(self, name: str | None = None) -> bool:
        """True."""
        del name
        return True

    def _build(self, input_shape: tuple[int, ...]) -> None:
        check_axes(
            "TimeSeriesNetwork summarizes time series",
            input_shape,
            ("time", "features"),
            "Add an axis to a scalar series: x[..., None].",
        )
        sizes = (input_shape[1], *self.widths)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, self.kernel_size, stride=self.stride, padding=self.kernel_size // 2)
            for a, b in pairwise(sizes)
        )
        self.recurrence = nn.GRU(
            sizes[-1], self.hidden_dim, batch_first=True, bidirectional=self.bidirectional
        )
        width = self.hidden_dim * (1 + self.bidirectional)
        self.features = nn.Linear(width + sizes[-1], width)
        self.head = MLP(3 * width + 1, self.head_widths, self.summary_dim).keep_scale()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardized series (n, time, features), mask (n, time), to summaries (n, summary_dim)."""
        x, mask = without_padding(x, mask)
        if mask is not None:
            x, mask = _without_gaps(x, mask)
        steps = log_count(x, mask)
        h = x
        for convolution in self.convolutions:
            h = nn.functional.silu(convolution(h.transpose(1, 2)).transpose(1, 2))
            if mask is not None:
                mask = mask[:, :: self.stride]
                h = h * mask[..., None]
        states, last = self._recurrent(h, mask)
        features = self.features(torch.cat([states, h], dim=-1))
        mean = mean_over(features, mask)
        summary: Tensor = self.head(
            torch.cat([last, mean, log_spread_over(features, mask, mean), steps], dim=-1)
        )
        return summary

    def _recurrent(self, h: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """States after every step (n, time, width) and at the ends (n, width).

        A series without steps counts as one step of zeros.
        """
        if mask is None:
            states, last = self.recurrence(h)
            return states, last.transpose(0, 1).flatten(1)
        lengths = mask.sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        packed_states, last = self.recurrence(packed)
        states, _ = pad_packed_sequence(packed_states, batch_first=True, total_length=h.shape[1])
        return states, last.transpose(0, 1).flatten(1)


def _without_gaps(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of x (n, time, d) that count, moved to the front in order, and their mask (n, time)."""
    order = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return x.gather(1, order[..., None].expand_as(x)), mask.gather(1, order)
