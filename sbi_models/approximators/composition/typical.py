"""Whether the items go together: an item that the others contradict is read far out in its posterior, where a network has seen little.

At the composed mode the score t_i of each item is compared with those of fresh items of the same parameters: with their mean and their
covariance V, far out is a large (t_i - mean)^T V^(-1) (t_i - mean), and the share of fresh items that are as far out is a p-value.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MOST = 100_000
"""Fresh items that are kept for comparison."""


class Contradicted(NamedTuple):
    """The least typical item.

    Attributes:
        p_value: that the least typical of so many items is as far out as that: its own p-value times their number, at most 1.
        item: its position.
        score: its score, less the mean (d,).
    """

    p_value: float
    item: int
    score: Tensor


def least_typical(own: Tensor, fresh: Tensor) -> Contradicted:
    """From scores of the items (n, d), and of fresh items (k, d), at the same theta."""
    mean = fresh.mean(dim=0)
    away = fresh - mean
    precision = torch.linalg.pinv(away.mT @ away / len(fresh), hermitian=True)
    expected = torch.einsum("kd,de,ke->k", away, precision, away).sort().values
    found = torch.einsum("nd,de,ne->n", own - mean, precision, own - mean)
    item = int(found.argmax())
    beyond = len(expected) - int(torch.searchsorted(expected, found[item]))
    return Contradicted(min(1.0, len(own) * (1 + beyond) / (1 + len(expected))), item, own[item] - mean)
