"""Summaries of sets by attention, which compares the elements of a set with each other.

J. Lee et al., Set Transformer: a framework for attention-based permutation-invariant neural networks, ICML
2019, arXiv:1810.00825.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import SummaryNetwork
from sbi_models.networks.layers import MLP
from sbi_models.networks.layers.attention import AttentionBlock, AttentionPooling, check_attention
from sbi_models.networks.layers.masks import SETS_ONLY, check_axes, without_padding
from sbi_models.networks.registry import register


class InducedBlock(nn.Module):
    """Attention whose cost is linear in the size of the set, by way of learned inducing points.

    Elements attend to the points, which have attended to all elements.
    """

    def __init__(self, width: int, heads: int, points: int, dropout: float) -> None:
        super().__init__()
        self.points = nn.Parameter(torch.randn(points, width))
        self.gather = AttentionBlock(width, heads, dropout)
        self.spread = AttentionBlock(width, heads, dropout)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Elements (n, set_size, width) with a mask (n, set_size) to (n, set_size, width)."""
        gathered = self.gather(self.points.expand(len(h), -1, -1), mask, h)
        spread: Tensor = self.spread(h, None, gathered)
        return spread


@register("set_transformer")
class SetTransformer(SummaryNetwork):
    """Blocks of self attention, pooling by attention, and an MLP.

    For sets whose elements explain each other, such as clusters; for independent draws `DeepSet` is as good
    and faster.

    Args:
        summary_dim: width of the summary.
        width: width of the features of an element; a multiple of `heads`.
        blocks: number of attention blocks.
        heads: attention heads.
        inducing_points: None lets every element look at every other one; a number of learned points makes the
            cost linear in the size of the set, for sets of some hundreds and more.
        seeds: learned queries of the pooling.
        head_widths: hidden widths of the network after pooling.
        dropout: dropout of the residual branches, while training.

    >>> network = SetTransformer(summary_dim=4, width=8, heads=2)
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
        inducing_points: int | None = None,
        seeds: int = 2,
        head_widths: Sequence[int] = (64,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_attention(width, heads, dropout)
        if min(summary_dim, blocks, seeds, 1 if inducing_points is None else inducing_points) < 1:
            raise ConfigurationError(
                "Expected summary_dim, blocks, seeds and inducing_points of at least 1, or "
                "inducing_points=None."
            )
        self.summary_dim = summary_dim
        self.width, self.blocks, self.heads, self.dropout = width, blocks, heads, dropout
        self.inducing_points, self.seeds, self.head_widths = inducing_points, seeds, tuple(head_widths)

    def takes_any_length(self, name: str | None = None) -> bool:
        """True."""
        del name
        return True

    def _build(self, input_shape: tuple[int, ...]) -> None:
        check_axes("SetTransformer summarizes sets", input_shape, ("set_size", "features"), SETS_ONLY)
        self.embedding = nn.Linear(input_shape[1], self.width)
        self.layers = nn.ModuleList(self._block() for _ in range(self.blocks))
        self.pooling = AttentionPooling(self.width, self.heads, self.seeds)
        self.head = MLP(self.pooling.out_dim, self.head_widths, self.summary_dim).keep_scale()

    def _block(self) -> nn.Module:
        if self.inducing_points is None:
            return AttentionBlock(self.width, self.heads, self.dropout)
        return InducedBlock(self.width, self.heads, self.inducing_points, self.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardized sets (n, set_size, features), mask (n, set_size), to summaries (n, summary_dim)."""
        x, mask = without_padding(x, mask)
        h = self.embedding(x)
        for layer in self.layers:
            h = layer(h, mask)
        summary: Tensor = self.head(self.pooling(h, mask))
        return summary
