"""Multihead attention: blocks and pooling.

A. Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv:1706.03762; with the norm inside the
residual branch, which needs no warm-up to be stable: R. Xiong et al., On layer normalization in the
transformer architecture, ICML 2020, arXiv:2002.04745.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbi_models.errors import ConfigurationError
from sbi_models.networks.layers.masks import log_count, log_spread_over, mean_over


def check_attention(width: int, heads: int, dropout: float = 0.0) -> None:
    """Raise ConfigurationError unless heads divide the width, and dropout is a probability below 1."""
    if heads < 1 or width < 1 or width % heads:
        raise ConfigurationError(
            f"Expected a width that is a multiple of the number of heads, got width={width} and "
            f"heads={heads}."
        )
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"Expected dropout in [0, 1), got {dropout}.")


class MultiheadAttention(nn.Module):
    """Multihead attention of queries (n, a, width) to elements (n, b, width).

    Each head is softmax(q k^T / sqrt(width / heads)) v; a linear map follows.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # the softmax does not see it
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, elements: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries (n, a, width) and elements (n, b, width) with a mask (n, b) to (n, a, width).

        Elements whose mask is False have a weight of exactly zero. Where nothing counts all have the same
        weight, so that the result is finite and, if they are equal, does not depend on their number.
        """
        seen = None if mask is None else (mask | ~mask.any(dim=1, keepdim=True))[:, None, None, :]
        q, k, v = (
            self._split(self.query(queries)),
            self._split(self.key(elements)),
            self._split(self.value(elements)),
        )
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return out

    def _split(self, h: Tensor) -> Tensor:
        """(n, a, width) to (n, heads, a, width / heads)."""
        return h.reshape(*h.shape[:2], self.heads, -1).transpose(1, 2)


class AttentionBlock(nn.Module):
    """x + attention(norm(x), norm(elements)), then + MLP(norm(.)): a block of a transformer."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiheadAttention(width, heads)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None, elements: Tensor | None = None) -> Tensor:
        """Attention of x (n, a, width) to elements (n, b, width) with a mask (n, b), or to itself."""
        normed = self.norm(x)
        seen = normed if elements is None else self.norm(elements)
        x = x + self.dropout(self.attention(normed, seen, mask))
        y: Tensor = x + self.dropout(self.inner(self.second_norm(x)))
        return y


class AttentionPooling(nn.Module):
    """Pooling by attention of learned seeds, log spread of learned features, and log number of elements.

    Seeds: J. Lee et al., Set Transformer, ICML 2019, arXiv:1810.00825. A weighted mean of bounded features
    only approximates a scale, hence the spread: K. Okabe et al., Attentive statistics pooling, Interspeech
    2018, arXiv:1803.10963.
    """

    def __init__(self, width: int, heads: int, seeds: int) -> None:
        super().__init__()
        self.seeds = nn.Parameter(torch.randn(seeds, width))
        self.attention = MultiheadAttention(width, heads)
        self.features = nn.Linear(width, width)
        self.out_dim = (seeds + 2) * width + 1

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Elements (n, length, width) with a mask (n, length) to (n, out_dim)."""
        pooled = self.attention(self.seeds.expand(len(h), -1, -1), h, mask).flatten(1)
        features = self.features(h)
        mean = mean_over(features, mask)
        return torch.cat([pooled, mean, log_spread_over(features, mask, mean), log_count(h, mask)], dim=-1)
