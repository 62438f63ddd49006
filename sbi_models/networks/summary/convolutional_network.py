"""Summaries of images by residual convolutions.

K. He et al., Deep residual learning for image recognition, CVPR 2016, arXiv:1512.03385; with a norm over the
channels of each pixel, which neither mixes images nor places: Z. Liu et al., A ConvNet for the 2020s, CVPR
2022, arXiv:2201.03545.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

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


class ResidualBlock(nn.Module):
    """Residual block h + conv(silu(conv(norm(h)))), the norm over the channels of one pixel.

    Pixels that are not there stay zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor, present: Tensor | None) -> Tensor:
        """Features of pixels (n, channels, height, width); present (n, 1, height, width) is 1 or 0."""
        inner = self.norm(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        inner = functional.silu(self.first(_kept(inner, present)))
        return h + _kept(self.second(_kept(inner, present)), present)


class Stage(nn.Module):
    """Residual blocks one after the other, at one resolution."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))

    def forward(self, h: Tensor, present: Tensor | None) -> Tensor:
        """As a block."""
        for block in self.blocks:
            h = block(h, present)
        return h


@register("convolutional_network")
class ConvolutionalNetwork(SummaryNetwork):
    """Stages of residual blocks, each at half the resolution, global mean and spread, and an MLP.

    Pixels that a mask (n, height, width) leaves out are seen by nobody, and the others keep their places: an
    image that is padded below and on the right has the summary of the image without padding.

    Args:
        summary_dim: width of the summary.
        widths: channels of each stage.
        blocks: residual blocks a stage.
        head_widths: hidden widths of the network after pooling.

    >>> network = ConvolutionalNetwork(summary_dim=4, widths=(4, 8))
    >>> network.build((16, 16, 1))
    >>> tuple(network(torch.zeros(3, 16, 16, 1)).shape)
    (3, 4)
    """

    def __init__(
        self,
        summary_dim: int = 16,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 1,
        head_widths: Sequence[int] = (64,),
    ) -> None:
        super().__init__()
        if not len(widths) or min(summary_dim, *widths, blocks) < 1:
            raise ConfigurationError("Expected summary_dim, blocks and one or more widths of at least 1.")
        self.summary_dim = summary_dim
        self.widths, self.blocks, self.head_widths = tuple(widths), blocks, tuple(head_widths)

    def _build(self, input_shape: tuple[int, ...]) -> None:
        check_axes(
            "ConvolutionalNetwork summarizes images",
            input_shape,
            ("height", "width", "channels"),
            "Add an axis to images of one channel, x[..., None], and put channels last.",
        )
        # One more channel says which pixels are there; beyond the edges all channels are zero.
        self.embedding = nn.Conv2d(input_shape[2] + 1, self.widths[0], 3, padding=1)
        self.stages = nn.ModuleList(Stage(width, self.blocks) for width in self.widths)
        self.widenings = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in pairwise(self.widths))
        self.head = MLP(2 * self.widths[-1] + 1, self.head_widths, self.summary_dim).keep_scale()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Summaries (n, summary_dim) of standardized images (n, height, width, channels).

        The mask is (n, height, width).
        """
        x, mask = without_padding(x, mask)
        ones = x.new_ones(*x.shape[:-1], 1) if mask is None else mask[..., None].to(x.dtype)
        present = None if mask is None else ones.permute(0, 3, 1, 2)
        # Channels stay last in memory: so convolutions are faster on a CPU, and norms need no copy.
        h = _kept(self.embedding(torch.cat([x, ones], dim=-1).permute(0, 3, 1, 2)), present)
        for number, stage in enumerate(self.stages):
            if number:
                h, present = _halved(h, present)
                h = self.widenings[number - 1](h)
            h = stage(h, present)
        pixels, seen = h.flatten(2).transpose(1, 2), None if present is None else present.flatten(1) > 0
        mean = mean_over(pixels, seen)
        size = log_count(x.flatten(1, 2), None if mask is None else mask.flatten(1))
        summary: Tensor = self.head(torch.cat([mean, log_spread_over(pixels, seen, mean), size], dim=-1))
        return summary


def _kept(h: Tensor, present: Tensor | None) -> Tensor:
    """Features with zeros where no pixel is."""
    return h if present is None else h * present


def _halved(h: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Means over the pixels that are there of each 2 x 2 square, and the squares in which there are some."""
    if present is None:
        return functional.avg_pool2d(h, 2, ceil_mode=True, count_include_pad=False), None
    share = functional.avg_pool2d(present, 2, ceil_mode=True)
    mean = functional.avg_pool2d(h, 2, ceil_mode=True) / share.clamp(min=0.25)
    return mean, (share > 0).to(h.dtype)
