"""Quasi-likelihood of many items near their composed posterior, calibrated by fresh simulations.

Items are simulated at parameters theta of a region around the posterior. Mean mu(theta) and covariance
V(theta) of a statistic S of single items are regressed on theta: mu by polynomials, V by
log-polynomial variances and one correlation. Then

    g(theta) = s_prior(theta) + (d mu / d theta)^T V(theta)^(-1) sum_i [S(x_i) - mu(theta)]

is the score of a posterior whose mean is right whatever errors the network makes, since S - mu has mean zero,
and whose width is that of what S tells. It is the exact score where S is sufficient in an exponential family
(P. McCullagh, Quasi-likelihood functions, Annals of Statistics 11, 1983; V. P. Godambe, An optimum property
of regular maximum likelihood estimation, Annals of Mathematical Statistics 31, 1960).

The statistic of single items is learned, to be close to the score of their likelihood in the region. Features
of an item x are scores of the network at points of the region, and what the network is conditioned on: as it
is, as normal scores and, if it is little, as products of two. The linear regression of theta on them, over
simulations of the region, is the linear function of the features that tells most about theta there: to first
order the score of the likelihood, as far as the features know it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sbi_models.approximators.composition.items import Fresh, Items, chunks, sharpening
from sbi_models.approximators.composition.polynomial_density import Monomials
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


_WIDENED, _WIDENED_MORE = 1.4, 2.0
"""Sds of a region, in those of the posterior, for less and for more than `_NARROW` items, or several
parameters, with low degrees."""

_NARROW = 50

_REACH = 1.5
"""Sds of the prior that a region is kept to."""

LINE = 2.5
"""Half the length of the region of one parameter, in its sds; its parameters are drawn uniformly."""

_ITEMS = 30.0
"""The statistic is learned in the region of the posterior of so many items, where each tells enough to be
seen."""

_STATISTIC = 16_000
"""Simulations that the statistic is learned from."""

_SEVERAL_POINTS = 2
"""Parameters up to which scores of few items are asked for at several points."""

_Degrees = tuple[dict[int, int], dict[int, int]]

_MEAN_DEGREES: _Degrees = ({1: 5, 2: 3}, {1: 3})

_VARIANCE_DEGREES: _Degrees = ({1: 4}, {})
"""Degrees of polynomials by the number of parameters, 2 where it is not there, for less and for more than
`_NARROW` items."""

_WIDE = 8
"""Parameters from which on polynomials are linear."""

_ROWS_A_TERM = 20
"""Fewest simulations for each term of a polynomial."""

_ROUNDS, _FISHER_STEPS = 3, 6


def scores_at(items: Items, points: Tensor, noise: float) -> Tensor:
    """Scores of items, with the noise taken out to first order, at points theta (m, d): shape (n, m, d)."""
    sharpened = sharpening(items.gaussians()[1], noise)
    parts = [
        torch.einsum("kij,kmj->kmi", sharpened[rows], items.score(points, noise, rows))
        for rows in chunks(len(items), len(points))
    ]
    return torch.cat(parts)


class Statistic:
    """Statistic S(x) of an item, learned by regression of theta on features of simulated items.

    It has mean 0 and unit covariance among them.

    Args:
        items: simulated items, one at each theta.
        theta: parameters of the items (k, d), standardized space.
        points: points at which scores of the network are features (m, d).
        noise: noise of the scores.

    Attributes:
        points: as given.
        dim: number of directions of theta that the features are informative of, at most d.
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
        informative = values > _LEAST * values.max().clamp_min(1e-300)
        self._weights = weights @ (axes[:, informative] / values[informative].sqrt())
        self.dim = int(informative.sum())

    def __call__(self, items: Items) -> Tensor:
        """S of items, (n, dim)."""
        values: Tensor = self._standard(self._features(items)) @ self._weights
        return values

    def _raw(self, items: Items) -> Tensor:
        return torch.cat([scores_at(items, self.points, self._noise).flatten(1), items.features], dim=1)

    def _features(self, items: Items) -> Tensor:
        """Features (n, f): clipped scores and conditions, normal scores of conditions, products of few."""
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


@dataclass(frozen=True)
class Region:
    """Parameters theta = center + factor u, with u (d,) of about unit variance."""

    center: Tensor
    factor: Tensor

    @classmethod
    def around(
        cls,
        mean: Tensor,
        covariance: Tensor,
        moments: tuple[Tensor, Tensor],
        num_items: int,
        *,
        for_statistic: bool = False,
    ) -> "Region":
        """Region of a posterior of mean (d,) and covariance (d, d), widened, within reach of the prior.

        The one in which the statistic is learned is that of the posterior of few items, where each tells
        enough to be seen.
        """
        widened = _WIDENED_MORE if num_items >= _NARROW or len(mean) > _SEVERAL_POINTS else _WIDENED
        widened = max(_WIDENED, math.sqrt(num_items / _ITEMS)) if for_statistic else widened
        precision, prior = torch.linalg.inv(widened**2 * covariance), torch.linalg.inv(_REACH**2 * moments[1])
        whole = torch.linalg.inv(precision + prior)
        return cls(
            whole @ (precision @ mean + prior @ moments[0]), torch.linalg.cholesky((whole + whole.mT) / 2)
        )

    def places(self, number: int, generator: torch.Generator) -> Tensor:
        """u (number, d), in pairs u, -u: uniform on a line, else normal and not too far out."""
        d, half = len(self.center), (number + 1) // 2
        if d == 1:
            u = (2 * torch.rand(half, 1, generator=generator, dtype=torch.float64) - 1) * LINE
        else:
            u = torch.randn(half, d, generator=generator, dtype=torch.float64)
            u = u * ((2 + math.sqrt(d)) / u.norm(dim=1, keepdim=True)).clamp_max(1.0)
        return torch.cat([u, -u])[:number]

    def theta(self, u: Tensor) -> Tensor:
        """Parameters (m, d) at u (m, d)."""
        return self.center + u @ self.factor.mT

    def u(self, theta: Tensor) -> Tensor:
        """u (m, d) of parameters (m, d)."""
        u: Tensor = torch.linalg.solve_triangular(self.factor, (theta - self.center).mT, upper=False).mT
        return u


class QuasiLikelihood:
    """Mean and covariance of a statistic as functions of theta in a region, from items simulated there.

    Args:
        statistic: statistic of items.
        region: region of parameters.
        fresh: simulates items.
        num_items: number of items that the posterior is given.
        number: simulations.
        seed: seed of their parameters and of the simulations.

    Attributes:
        simulations: number of items that were simulated, without failed ones.
        leverage: variance of the regression of mu at the center, times `simulations`, in units of V.
        residuals: S - mu(theta) of the simulated items in units of its sds, (k, dim).
    """

    def __init__(
        self, statistic: Statistic, region: Region, fresh: Fresh, *, num_items: int, number: int, seed: int
    ) -> None:
        self.statistic, self.region = statistic, region
        u = region.places(number, torch.Generator().manual_seed(seed))
        parts = [(rows, statistic(items)) for rows, items in fresh(region.theta(u), seed)]
        u, values = u[torch.cat([rows for rows, _ in parts])], torch.cat([part for _, part in parts])
        d, self.simulations = u.shape[1], len(u)
        many = num_items >= _NARROW
        self._mean = Monomials(d, _degree(_MEAN_DEGREES[many].get(d, 2), d, len(u)))
        self._log_variance = Monomials(d, _degree(_VARIANCE_DEGREES[many].get(d, 2), d, len(u)))
        mean_terms, variance_terms = self._mean(u), self._log_variance(u)
        fits = [_regression(column, mean_terms, variance_terms) for column in values.mT]
        self._mean_weights, self._variance_weights = (
            torch.stack(part, dim=1) for part in zip(*fits, strict=True)
        )
        self.residuals = (values - mean_terms @ self._mean_weights) / (
            variance_terms @ self._variance_weights / 2
        ).exp()
        correlation = torch.corrcoef(self.residuals.mT).reshape(statistic.dim, statistic.dim)
        self._correlation = (correlation + 1e-3 * torch.eye(statistic.dim, dtype=u.dtype)) / (1 + 1e-3)
        self.leverage = len(u) * float(torch.linalg.inv(mean_terms.mT @ mean_terms)[0, 0])

    def slopes(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """mu (m, dim) at theta (m, d), and V^(-1) d mu / d theta (m, dim, d).

        The latter turns sums of S - mu into scores.
        """
        u = self.region.u(theta)
        terms = self._mean(u)
        slope = torch.einsum("ml,jlk,kq->mqj", terms, self._mean.slopes, self._mean_weights)
        slope = torch.linalg.solve(self.region.factor.mT, slope.mT).mT
        sd = self._sd_at(u)
        covariance = sd[:, :, None] * self._correlation * sd[:, None, :]
        return terms @ self._mean_weights, torch.linalg.solve(covariance, slope)

    def score(self, theta: Tensor, total: Tensor, num_items: int) -> Tensor:
        """d log L / d theta (m, d) at theta (m, d), for a sum of S over items (dim,)."""
        mean, factor = self.slopes(theta)
        return torch.einsum("mqj,mq->mj", factor, total - num_items * mean)

    def scatter(self, items: Items, theta: Tensor) -> Tensor:
        """S - mu of items at theta (d,) in units of sds, (n, dim), to be compared with `residuals`."""
        u = self.region.u(theta[None])
        return (self.statistic(items) - self._mean(u) @ self._mean_weights) / self._sd_at(u)

    def sd(self, theta: Tensor) -> Tensor:
        """Standard deviations of S at theta (m, d), shape (m, dim)."""
        return self._sd_at(self.region.u(theta))

    def _sd_at(self, u: Tensor) -> Tensor:
        return (self._log_variance(u) @ self._variance_weights / 2).clamp(-20, 20).exp()


def learn_statistic(
    near: Region, wide: Region, fresh: Fresh, *, num_items: int, noise: float, number: int, seed: int
) -> Statistic:
    """Statistic for a region near a posterior of so many items, learned in a wide region.

    At most `number` simulations are used.
    """
    d, points = len(near.center), near.center[None]
    if num_items < _NARROW and d <= _SEVERAL_POINTS:  # one point sees too little of what few items leave open
        points = torch.cat(
            [points, near.theta(torch.eye(d).to(points)), near.theta(-torch.eye(d).to(points))]
        )
    theta = wide.theta(wide.places(min(number, _STATISTIC), torch.Generator().manual_seed(seed)))
    rows, items = next(iter(fresh(theta, seed)))
    return Statistic(items, theta[rows], points, noise)


def _degree(wanted: int, theta_dim: int, rows: int) -> int:
    """The highest degree up to the wanted one that so many rows can bear."""
    degree = 1 if theta_dim > _WIDE else wanted
    while degree > 1 and _ROWS_A_TERM * math.comb(theta_dim + degree, degree) > rows:
        degree -= 1
    return degree


def _regression(values: Tensor, mean_terms: Tensor, variance_terms: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of the mean (k,) and of the log variance (l,) of values (n,), each fitted given the other.

    Means by weighted least squares; log variances by gamma regression of squared residuals, with steps of
    Fisher scoring.
    """
    log_variance = torch.zeros(variance_terms.shape[1], dtype=values.dtype)
    weights = torch.ones_like(values)
    information = variance_terms.mT @ variance_terms + 1e-6 * len(values) * torch.eye(
        variance_terms.shape[1], dtype=values.dtype
    )
    for number in range(_ROUNDS):
        weighted = mean_terms * weights[:, None]
        gram = weighted.mT @ mean_terms + 1e-9 * len(values) * torch.eye(
            mean_terms.shape[1], dtype=values.dtype
        )
        mean = torch.linalg.solve(gram, weighted.mT @ values)
        squares = (values - mean_terms @ mean).square()
        if number == 0:
            log_variance[0] = squares.mean().clamp_min(1e-300).log()
        for _ in range(_FISHER_STEPS):
            ratios = squares / (variance_terms @ log_variance).clamp(-30, 30).exp()
            log_variance = log_variance + torch.linalg.solve(
                information, variance_terms.mT @ (ratios.clamp_max(50.0) - 1)
            )
        weights = (-(variance_terms @ log_variance).clamp(-30, 30)).exp()
        weights = (weights / weights.mean()).clamp(0.02, 50.0)
    return mean, log_variance
