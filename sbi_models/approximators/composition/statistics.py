"""A statistic of single items that is close to the score of their likelihood near given parameters, learned
from simulations.

Features of an item x are scores of the network at points of a region of parameters, and what the network is
conditioned on: as it is, as normal scores and, if it is little, as products of two. The linear regression of
theta on them, over simulations of the region, is the linear function of the features that tells most about
theta there: to first order the score of the likelihood, as far as the features know it.
"""

import torch
from torch import Tensor

from sbi_models.approximators.composition.items import Items, chunks, sharpening
from sbi_models.approximators.composition.score import symmetric

_TAIL = 5e-4
"""Share of the simulations at each end beyond which features are cut, one range farther out: a network may do
anything there."""

_GRID = 20_000
"""Simulations that normal scores are taken among."""

_PRODUCTS, _FAR = 8, 5.0
"""Conditions up to which products of two are features, and sds beyond which these are cut."""

_DISTINCT = 0.2
"""Share of different values from which on a condition has normal scores; below, it is discrete."""

_RIDGE = 1e-4
_LEAST = 1e-8


def scores_at(items: Items, points: Tensor, noise: float) -> Tensor:
    """Scores of items, with the noise taken out to first order, at points theta (m, d): shape (n, m, d)."""
    sharpened = sharpening(items.gaussians()[1], noise)
    parts = [
        torch.einsum("kij,kmj->kmi", sharpened[rows], items.score(points, noise, rows))
        for rows in chunks(len(items), len(points))
    ]
    return torch.cat(parts)


class Statistic:
    """S(x) (d,), learned from items (k) simulated at theta (k, d); it has mean 0 and unit covariance among
    them.

    Args:
        items: simulated, one at each theta.
        theta: (k, d), standardized space.
        points: where the network is asked for scores (m, d).
        noise: noise of the scores.

    Attributes:
        points: as given.
        dim: directions of theta that the features tell of, at most d.
    """

    def __init__(self, items: Items, theta: Tensor, points: Tensor, noise: float) -> None:
        self.points, self._noise = points, noise
        raw = self._raw(items)
        ends = torch.quantile(raw[: 2 * _GRID], torch.tensor([_TAIL, 1 - _TAIL], dtype=raw.dtype), dim=0)
        self._low, self._high = 2 * ends[0] - ends[1], 2 * ends[1] - ends[0]
        columns = [(k, column.sort().values) for k, column in enumerate(items.features[:_GRID].mT)]
        self._columns = [
            (k, values) for k, values in columns if float((values.diff() > 0).double().mean()) > _DISTINCT
        ]
        self._products = 0 < items.features.shape[1] <= _PRODUCTS
        if self._products:
            self._center, self._scale = items.features.mean(dim=0), items.features.std(dim=0).clamp_min(1e-9)
        features = self._features(items)
        self._mean, self._sd = features.mean(dim=0), features.std(dim=0)
        self._kept = self._sd > 1e-9 * (1 + self._mean.abs())
        standard = self._standard(features)
        gram = standard.mT @ standard / len(standard) + _RIDGE * torch.eye(
            standard.shape[1], dtype=standard.dtype
        )
        weights = torch.linalg.solve(gram, standard.mT @ (theta - theta.mean(dim=0)) / len(standard))
        values, axes = torch.linalg.eigh(
            symmetric(weights.mT @ (standard.mT @ standard / len(standard)) @ weights)
        )
        told = values > _LEAST * values.max().clamp_min(1e-300)
        self._weights = weights @ (axes[:, told] / values[told].sqrt())
        self.dim = int(told.sum())

    def __call__(self, items: Items) -> Tensor:
        """S of items, (n, dim)."""
        found: Tensor = self._standard(self._features(items)) @ self._weights
        return found

    def _raw(self, items: Items) -> Tensor:
        return torch.cat([scores_at(items, self.points, self._noise).flatten(1), items.features], dim=1)

    def _features(self, items: Items) -> Tensor:
        """Features (n, f): cut where the network may do anything, with normal scores of conditions beside,
        and products of few."""
        parts = [torch.minimum(torch.maximum(self._raw(items), self._low), self._high)]
        for k, values in self._columns:
            column = items.features[:, k].contiguous()
            below = torch.searchsorted(values, column) + torch.searchsorted(values, column, right=True)
            parts.append(torch.special.ndtri((below + 1) / (2 * len(values) + 2.0)).to(column)[:, None])
        if self._products:
            standard = ((items.features - self._center) / self._scale).clamp(-_FAR, _FAR)
            first, second = torch.triu_indices(standard.shape[1], standard.shape[1])
            parts.append(standard[:, first] * standard[:, second])
        return torch.cat(parts, dim=1)

    def _standard(self, features: Tensor) -> Tensor:
        return ((features - self._mean) / self._sd)[:, self._kept]
