"""Outlier test of single items at the composed posterior: one that the others contradict is read where a
network has seen little.

Far out is a large Mahalanobis distance of an item's statistic from those of fresh items of the same
parameters; the share of fresh items that are as far out or farther, ties among them, is a p-value.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_TIES = 1e-6


class Outlying(NamedTuple):
    """The item that is farthest out.

    Attributes:
        p_value: p-value that the farthest of so many items is as far out as that: its own p-value times their
            number, at most 1.
        item: its position.
        away: its statistic, less the mean of fresh ones (q,).
    """

    p_value: float
    item: int
    away: Tensor


def farthest_item(own: Tensor, fresh: Tensor) -> Outlying:
    """From statistics of the items (n, q), and of fresh items (k, q), of the same parameters."""
    mean = fresh.mean(dim=0)
    away = fresh - mean
    precision = torch.linalg.pinv(away.mT @ away / len(fresh), hermitian=True)
    expected = torch.einsum("kd,de,ke->k", away, precision, away).sort().values
    found = torch.einsum("nd,de,ne->n", own - mean, precision, own - mean)
    item = int(found.argmax())
    beyond = len(expected) - int(
        torch.searchsorted(expected, found[item] * (1 - _TIES))
    )  # equal but for rounding is as far out
    return Outlying(min(1.0, len(own) * (1 + beyond) / (1 + len(expected))), item, own[item] - mean)
