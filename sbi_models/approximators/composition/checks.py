"""Checks of a composition: outlier test of single items, and underfitting of the network.

Outliers: an item that the others contradict is evaluated where a network has seen little. Its statistic at
the composed posterior has a large Mahalanobis distance from those of fresh items of the same parameters; the
share of fresh items that are as far out or farther, ties among them, is a p-value.

Underfitting: exact scores cannot be predicted from their conditions. For theta from its posterior given x the
mean of d log p(theta | x) / d theta is zero, for every x. So over simulations (theta, x) the scores of a
network at theta, each in units of its item's sd, have no regression on x, unless the network was trained too
short to see in x what squares of its components see.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_TIES = 1e-6


ROWS = 50_000
"""Simulations that are enough to see."""

_FEWEST = 10
"""Simulations for each feature that are needed."""

_RIDGE = 1e-4

_UNDERFITTED = 0.05
"""Share of the variance of scores that may be predictable: 0 to 0.003 in networks that are trained well, 0.05
to 0.09 after 250 steps, when composed sds were too large by a third to a half."""


class Outlier(NamedTuple):
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


def farthest_item(items: Tensor, fresh: Tensor) -> Outlier:
    """Outlier test of statistics of the items (n, q) against fresh items (k, q) of the same parameters."""
    mean = fresh.mean(dim=0)
    away = fresh - mean
    precision = torch.linalg.pinv(away.mT @ away / len(fresh), hermitian=True)
    fresh_distances = torch.einsum("kd,de,ke->k", away, precision, away).sort().values
    distances = torch.einsum("nd,de,ne->n", items - mean, precision, items - mean)
    item = int(distances.argmax())
    beyond = len(fresh_distances) - int(
        torch.searchsorted(fresh_distances, distances[item] * (1 - _TIES))
    )  # equal but for rounding is as far out
    return Outlier(min(1.0, len(items) * (1 + beyond) / (1 + len(fresh_distances))), item, items[item] - mean)


def predictable_share(features: Tensor, scores: Tensor) -> float:
    """Largest held-out R^2 >= 0 of the components of scores (n, d), by features (n, c) and their squares.

    Zero where there are too few simulations to say.
    """
    scale = features.std(dim=0).clamp_min(1e-9)
    standard = ((features - features.mean(dim=0)) / scale).clamp(-5, 5)
    terms = torch.cat([torch.ones_like(scores[:, :1]), standard, standard.square()], dim=1)
    half = len(terms) // 2
    if half < _FEWEST * terms.shape[1]:
        return 0.0
    gram = terms[:half].mT @ terms[:half] / half + _RIDGE * torch.eye(terms.shape[1], dtype=terms.dtype)
    coefficients = torch.linalg.solve(gram, terms[:half].mT @ scores[:half] / half)
    left = (scores[half:] - terms[half:] @ coefficients).square().mean(dim=0)
    return float((1 - left / scores[half:].square().mean(dim=0).clamp_min(1e-300)).clamp_min(0).max())


def is_underfitted(share: float) -> bool:
    """Whether conditions predict so much of the scores that these are not to be trusted."""
    return share >= _UNDERFITTED


def underfitting_note(share: float) -> tuple[str, ...]:
    """A reason not to trust compositions without a simulator, if there is one."""
    if not is_underfitted(share):
        return ()
    return (
        f"The network is underfitted: conditions predict {share:.0%} of the variance of its scores, and none "
        "of that of exact scores. Composed posteriors are too wide, or off: train longer, or pass the "
        "simulator.",
    )
