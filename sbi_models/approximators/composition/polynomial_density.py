"""A polynomial log density, fitted to scores, and draws from it without further calls of a network."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_RIDGE = 1e-4
_HELD_OUT = 4
"""One point in so many is held out."""

_SPREAD = 1.3
"""Sd of the points of the fit."""

_STEPS = 200


def degree_for(theta_dim: int) -> int:
    """The degree whose number of terms is bearable: 4 up to four dimensions, 3 up to eight, 2 beyond."""
    return 4 if theta_dim <= 4 else 3 if theta_dim <= 8 else 2


def num_points(theta_dim: int, degree: int) -> int:
    """Points of a fit, d equations each: three times as many equations as terms, and some."""
    terms = math.comb(theta_dim + degree, degree) - 1
    return max(40, 20 + 3 * terms // theta_dim)


def fit_points(theta_dim: int, degree: int, generator: torch.Generator) -> Tensor:
    """Points u (m, d) at which a fit needs the score: normal, in pairs u, -u."""
    half = (
        torch.randn(
            (num_points(theta_dim, degree) + 1) // 2, theta_dim, generator=generator, dtype=torch.float64
        )
        * _SPREAD
    )
    return torch.cat([half, -half])


class Monomials:
    """Products of at most `degree` components of u (m, d), the constant 1 first, and their slopes."""

    def __init__(self, theta_dim: int, degree: int) -> None:
        exponents = [(0,) * theta_dim]
        self._made: list[tuple[Tensor, Tensor]] = []
        last = [(0, 0)]  # position of each product of the last degree, and the last factor it may get
        for _ in range(degree):
            parents, factors, new = [], [], []
            for parent, first in last:
                for j in range(first, theta_dim):
                    new.append((len(exponents), j))
                    parents.append(parent)
                    factors.append(j)
                    exponents.append(tuple(e + (i == j) for i, e in enumerate(exponents[parent])))
            self._made.append((torch.tensor(parents), torch.tensor(factors)))
            last = new
        self.exponents = torch.tensor(exponents)
        where = {e: k for k, e in enumerate(exponents)}
        self.slopes = torch.zeros(theta_dim, len(exponents), len(exponents), dtype=torch.float64)
        """Products to slopes: d u^e_k / du_j = sum_l slopes[j, l, k] u^e_l."""
        for k, e in enumerate(exponents):
            for j in range(theta_dim):
                if e[j]:
                    self.slopes[j, where[tuple(v - (i == j) for i, v in enumerate(e))], k] = e[j]

    def __call__(self, u: Tensor) -> Tensor:
        """The products (m, k)."""
        products = u.new_empty(len(u), len(self.exponents))
        products[:, 0], stop = 1.0, 1
        for parents, factors in self._made:
            start, stop = stop, stop + len(parents)
            products[:, start:stop] = products.index_select(1, parents).mul_(u.index_select(1, factors))
        return products


@dataclass(frozen=True)
class PolynomialDensity:
    """Polynomial log density of u (m, d) of about unit variance, zero density beyond a radius.

    log q(u) = sum_k c_k prod_j u_j^e_kj for |u| < radius.

    Attributes:
        monomials: the products.
        coefficients: c (k,).
        explained: R^2 of held-out scores.
    """

    monomials: Monomials
    coefficients: Tensor
    explained: float

    @property
    def theta_dim(self) -> int:
        """d."""
        return self.monomials.exponents.shape[1]

    @property
    def radius(self) -> float:
        """3.5 + sqrt(d)."""
        return 3.5 + math.sqrt(self.theta_dim)

    @cached_property
    def _of_both(self) -> Tensor:
        """Products to log q and its slopes, (k, 1 + d)."""
        return torch.cat([self.coefficients[:, None], (self.monomials.slopes @ self.coefficients).mT], dim=1)

    def density_and_score(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log q (m,), which is 0 at u = 0 and -inf beyond the radius, and d log q / d u (m, d)."""
        both = self.monomials(u) @ self._of_both
        return torch.where(u.norm(dim=-1) < self.radius, both[:, 0], -math.inf), both[:, 1:]

    def log_mass(self, generator: torch.Generator) -> float:
        """log of the integral of q, by importance sampling from a normal of sd 1.3."""
        u = torch.randn(20_000, self.theta_dim, generator=generator, dtype=torch.float64)
        log_normal = -u.square().sum(dim=-1) / 2 - self.theta_dim * (
            math.log(_SPREAD) + math.log(2 * math.pi) / 2
        )
        return float((self.density_and_score(_SPREAD * u)[0] - log_normal).logsumexp(dim=0)) - math.log(
            len(u)
        )

    def draw(self, num_samples: int, generator: torch.Generator) -> tuple[Tensor, float]:
        """Independent draws (num_samples, d), each the end of a chain, and the share of accepted steps.

        Metropolis-adjusted Langevin steps from a standard normal; their length adapts in the first half.
        """
        u = torch.randn(num_samples, self.theta_dim, generator=generator, dtype=torch.float64)
        u = u * (0.9 * self.radius / u.norm(dim=-1, keepdim=True)).clamp_max(1.0)
        (value, slope), step, share = self.density_and_score(u), 0.7 * self.theta_dim ** (-1 / 6), 0.0
        for k in range(_STEPS):
            noise = torch.randn(u.shape, generator=generator, dtype=u.dtype)
            new = u + step**2 / 2 * slope + step * noise
            new_value, new_slope = self.density_and_score(new)
            back = (u - new - step**2 / 2 * new_slope) / step
            log_ratio = new_value - value + (noise.square() - back.square()).sum(dim=-1) / 2
            accepted = torch.rand(num_samples, generator=generator, dtype=u.dtype).log() < log_ratio
            share = float(accepted.double().mean())
            u, slope = (torch.where(accepted[:, None], a, b) for a, b in ((new, u), (new_slope, slope)))
            value = torch.where(accepted, new_value, value)
            if k < _STEPS // 2:
                step = min(1.6, max(0.05, step * math.exp(0.1 * (share - 0.7))))
        return u, share


def fit_density(u: Tensor, scores: Tensor, degree: int) -> PolynomialDensity:
    """Polynomial density with the scores nearest to `scores` (m, d) at u (m, d), by ridge regression.

    The ridge pulls slightly to the standard normal.
    """
    monomials = Monomials(u.shape[1], degree)
    normal = torch.where(
        (monomials.exponents == 2).any(dim=1) & (monomials.exponents.sum(dim=1) == 2), -0.5, 0.0
    ).double()
    slopes = torch.einsum("ml,jlk->mjk", monomials(u), monomials.slopes)[:, :, 1:]
    rest = scores - slopes @ normal[1:]
    held = torch.arange(len(u)) % _HELD_OUT == 0
    trial = normal[1:] + _least_squares(slopes[~held], rest[~held])
    errors = scores[held] - slopes[held] @ trial
    explained = 1 - float(
        errors.square().sum() / (scores[held] - scores[held].mean(dim=0)).square().sum().clamp_min(1e-300)
    )
    coefficients = normal.clone()
    coefficients[1:] += _least_squares(slopes, rest)
    return PolynomialDensity(monomials, coefficients, explained)


def _least_squares(slopes: Tensor, targets: Tensor) -> Tensor:
    """Coefficients (k,) for slopes (m, d, k) and targets (m, d); the ridge sees terms of one size."""
    matrix = slopes.flatten(0, 1)
    scale = matrix.square().mean(dim=0).sqrt().clamp_min(1e-12)
    matrix = matrix / scale
    normal = matrix.mT @ matrix / len(matrix) + _RIDGE * torch.eye(len(scale), dtype=matrix.dtype)
    solution: Tensor = torch.linalg.solve(normal, matrix.mT @ targets.flatten() / len(matrix))
    return solution / scale
