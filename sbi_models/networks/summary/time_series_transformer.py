"""Summaries of time series by attention, with regular or irregular sampling."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import SummaryNetwork
from sbi_models.networks.layers import MLP
from sbi_models.networks.layers.attention import AttentionBlock, AttentionPooling, check_attention
from sbi_models.networks.layers.masks import check_axes, without_padding
from sbi_models.networks.layers.time_encoding import TimeEncoding
from sbi_models.networks.registry import register

_SPAN = 12**0.5
"""Length of an interval on which evenly spaced times have a standard deviation of 1."""

_FIRST_WEIGHT_OF_TIMES = 0.2
"""Relative to that of values: what is seen matters from the start, when it is seen where training finds it
so."""


@register("time_series_transformer")
class TimeSeriesTransformer(SummaryNetwork):
    """A short convolution, blocks of self attention with a time encoding, pooling by attention, and an MLP.

    The convolution shows every step its neighbours, with their times; attention relates distant steps. A step
    that a mask leaves out is seen by nobody, and the others keep their positions.

    Args:
        summary_dim: width of the summary.
        width: width of the features of a step; a multiple of `heads`.
        blocks: number of attention blocks.
        heads: attention heads.
        time_axis: index of the feature that holds the observation times, for irregular sampling; they should
            be standardized, as by standardize="all". None: the position in the series is the time.
        kernel_size: steps that the first layer sees at once, an odd number; 1 for each step alone.
        seeds: learned queries of the pooling.
        head_widths: hidden widths of the network after pooling.
        dropout: dropout of the residual branches, while training.

    >>> network = TimeSeriesTransformer(summary_dim=4, width=8, heads=2)
    >>> network.build((20, 2))
    >>> tuple(network(torch.zeros(3, 20, 2)).shape)
    (3, 4)
    """

    def __init__(
        self,
        summary_dim: int = 16,
        width: int = 32,
        blocks: int = 2,
        heads: int = 4,
        *,
        time_axis: int | None = None,
        kernel_size: int = 3,
        seeds: int = 2,
        head_widths: Sequence[int] = (64,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_attention(width, heads, dropout)
        if min(summary_dim, blocks, seeds, kernel_size) < 1 or kernel_size % 2 == 0:
            raise ConfigurationError(
                "Expected summary_dim, blocks and seeds of at least 1, and an odd kernel_size."
            )
        self.summary_dim = summary_dim
        self.width, self.blocks, self.heads, self.dropout = width, blocks, heads, dropout
        self.time_axis, self.kernel_size, self.seeds, self.head_widths = (
            time_axis,
            kernel_size,
            seeds,
            tuple(head_widths),
        )

    def takes_any_length(self, name: str | None = None) -> bool:
        """True."""
        del name
        return True

    def _build(self, input_shape: tuple[int, ...]) -> None:
        check_axes(
            "TimeSeriesTransformer summarizes time series",
            input_shape,
            ("time", "features"),
            "Add an axis to a scalar series: x[..., None].",
        )
        self.length, features = input_shape
        if self.time_axis is not None and not -features <= self.time_axis < features:
            raise ConfigurationError(
                f"Expected time_axis as the index of one of {features} features, got {self.time_axis}."
            )
        self.encoding = TimeEncoding(self.length)
        # One more channel says which steps are there; beyond the ends of the series all channels are zero.
        values = features - (self.time_axis is not None)
        self.embedding = nn.Conv1d(
            values + self.encoding.dim + 1, self.width, self.kernel_size, padding=self.kernel_size // 2
        )
        with torch.no_grad():
            self.embedding.weight[:, values : values + self.encoding.dim] *= _FIRST_WEIGHT_OF_TIMES
        self.layers = nn.ModuleList(
            AttentionBlock(self.width, self.heads, self.dropout) for _ in range(self.blocks)
        )
        self.pooling = AttentionPooling(self.width, self.heads, self.seeds)
        self.head = MLP(self.pooling.out_dim, self.head_widths, self.summary_dim).keep_scale()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardized series (n, time, features), mask (n, time), to summaries (n, summary_dim)."""
        x, mask = without_padding(x, mask)
        values, times = self._times(x)
        where = torch.cat([self.encoding(times), torch.ones_like(times)], dim=-1)
        if mask is not None:
            where = where * mask[..., None]
        h = self._embedded(values, where)
        for layer in self.layers:
            h = layer(h, mask)
        summary: Tensor = self.head(self.pooling(h, mask))
        return summary

    def _embedded(self, values: Tensor, where: Tensor) -> Tensor:
        """Embedding (n, time, width): convolution over values (n, time, v) plus features of places.

        The places are (n or 1, time, w).

        Places that all series share are convolved once. The convolution is a product of matrices, which is
        faster for few channels.
        """
        weight, count = self.embedding.weight, values.shape[-1]
        return _convolved(values, weight[:, :count]) + _convolved(
            where, weight[:, count:], self.embedding.bias
        )

    def _times(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features that are not times (n, time, features), and times (n or 1, time, 1).

        Times are in units of about a training series.
        """
        if self.time_axis is None:
            steps = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
            return x, (steps / self.length)[None, :, None]
        axis = self.time_axis % x.shape[-1]
        return torch.cat([x[..., :axis], x[..., axis + 1 :]], dim=-1), x[..., axis : axis + 1] / _SPAN


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution of channels (n, time, c), zero beyond both ends, with a kernel (width, c, odd size).

    The result is (n, time, width).
    """
    width, channels, size = weight.shape
    padded = nn.functional.pad(x, (0, 0, size // 2, size // 2))
    seen = torch.cat([padded[:, shift : shift + x.shape[1]] for shift in range(size)], dim=-1)
    return nn.functional.linear(seen, weight.transpose(1, 2).reshape(width, channels * size), bias)
