"""Mixtures of Student's t that are fitted to points: independent proposals of Markov chains.

A proposal that does not depend on where a chain is leads from mode to mode, and needs no gradient (Y. F.
Atchadé, G. Fort, E. Moulines, P. Priouret, Adaptive Markov chain Monte Carlo, in: Bayesian Time Series
Models, 2011; L. Tierney, Markov chains for exploring posterior distributions, Annals of Statistics 22, 1994).
"""

import math

import torch
from torch import Tensor

from sbi_models.workflows.likelihood.streams import Streams

_MOST, _POINTS_PER_COORDINATE = 12, 20
"""Most components, and least number of points for each coordinate of a component."""

_ITERATIONS = 20
_DEGREES = 8
"""Degrees of freedom: tails shall be heavier than those of the points."""


class StudentMixture:
    """Mixture of Student's t of each of n data sets, with 8 degrees of freedom.

    Means, covariances and weights are those of a mixture of normals by expectation maximization, with
    covariances drawn towards that of all points, so that a component with few points has a volume.

    Args:
        points: (n, p, d), float64; few distinct ones among them are enough.
        streams: random numbers, for the points where components start.
        rows: streams (n,) of the data sets.
    """

    def __init__(self, points: Tensor, streams: Streams, rows: Tensor) -> None:
        n, p, d = points.shape
        k = max(1, min(_MOST, p // (_POINTS_PER_COORDINATE * d)))
        self.centre = points.mean(dim=1, keepdim=True)
        self.scale = points.std(dim=1, keepdim=True).clamp(min=1e-300)
        unit = (points - self.centre) / self.scale
        spread = unit.mT @ unit / p + 1e-9 * torch.eye(d, dtype=torch.float64)
        prior = spread[:, None] * k ** (-2 / d)
        first = streams.uniform((p,), rows).argsort(dim=1)[:, :k]
        self.means = unit.gather(1, first[..., None].expand(-1, -1, d))
        self.roots = torch.linalg.cholesky(prior).expand(n, k, d, d)
        self.log_weights = torch.full((n, k), -math.log(k), dtype=torch.float64)
        for _ in range(_ITERATIONS if k > 1 else 1):
            share = self._normal(unit).softmax(dim=2)  # (n, p, k)
            number = share.sum(dim=1)
            self.means = (share.mT @ unit + self.means * 1e-9) / (number + 1e-9)[..., None]
            centred = unit[:, :, None] - self.means[:, None]
            moments = torch.einsum("npk,npki,npkj->nkij", share, centred, centred)
            covariance = (moments + (d + 1) * prior) / (number + d + 1)[..., None, None]
            self.roots = torch.linalg.cholesky(covariance)
            self.log_weights = ((number + 1) / (p + k)).log()

    def draw(self, number: int, streams: Streams, rows: Tensor) -> Tensor:
        """Draws (n, number, d)."""
        _, _, d = self.means.shape
        chance, normal = streams.uniform((number,), rows), streams.normal((number, d + _DEGREES), rows)
        ends = self.log_weights.exp().cumsum(dim=1)
        ends[:, -1] = torch.inf
        which = torch.searchsorted(ends, chance)
        mean = self.means.gather(1, which[..., None].expand(-1, -1, d))
        root = self.roots.gather(1, which[..., None, None].expand(-1, -1, d, d))
        heavy = normal[..., d:].square().mean(dim=2, keepdim=True).sqrt()
        unit = mean + (root @ (normal[..., :d] / heavy)[..., None])[..., 0]
        drawn: Tensor = self.centre + self.scale * unit
        return drawn

    def log_density(self, z: Tensor) -> Tensor:
        """Log density (n, m) at z (n, m, d), up to a constant of each data set, in nats."""
        d, distance, logs = z.shape[2], *self._distances((z - self.centre) / self.scale)
        total: Tensor = (logs - (_DEGREES + d) / 2 * (distance / _DEGREES).log1p()).logsumexp(dim=2)
        return total

    def _normal(self, unit: Tensor) -> Tensor:
        """Log weights plus log normal densities (n, m, k), up to a constant."""
        distance, logs = self._distances(unit)
        return logs - 0.5 * distance

    def _distances(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances from the components (n, m, k), and log weights less log volumes (n, 1, k)."""
        centred = (unit[:, None] - self.means[:, :, None]).mT  # (n, k, d, m)
        standardized = torch.linalg.solve_triangular(self.roots, centred, upper=False)
        volumes = self.roots.diagonal(dim1=2, dim2=3).log().sum(dim=2)
        return standardized.square().sum(dim=2).mT, (self.log_weights - volumes)[:, None]
