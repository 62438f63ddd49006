"""Items whose posteriors are exact, without any network: the oracles of composition."""

import math

import numpy as np
import torch

from sbi_models import seeding
from sbi_models.approximators.composition.items import ROWS_AT_A_TIME

LIKELIHOOD = torch.tensor([[0.5, 0.6], [0.6, 2.0]], dtype=torch.float64)
"""Covariance of x given theta, of the items in two dimensions."""


def rng(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


class GaussianItems:
    """theta ~ N(0, I), x ~ N(theta, likelihood); the scores are exact but for errors, which are given at no
    noise.

    Args:
        x: (n, d).
        likelihood: covariance (d, d).
        shared: function of theta (m, d) that is added to the score of every item.
        own: added to the score of each item (n, d).
        features: what a network would see of the items (n, c).
    """

    evaluations_of_density = 7

    def __init__(self, x, likelihood=LIKELIHOOD, *, shared=None, own=None, features=None):
        self.theta_dim, self.x, self.shared, self.own = x.shape[1], x, shared, own
        precision = torch.linalg.inv(likelihood)
        self.eye = torch.eye(self.theta_dim, dtype=torch.float64)
        self.covariance = torch.linalg.inv(self.eye + precision)
        self.means = x @ (self.covariance @ precision).mT
        self.calls = 0
        self.likelihood = likelihood
        self.features = x[:, :0] if features is None else features

    def __len__(self):
        return len(self.x)

    def gaussians(self):
        return self.means, self.covariance.expand(len(self), -1, -1)

    def some(self, rows):
        own = None if self.own is None else self.own[rows]
        return GaussianItems(
            self.x[rows], self.likelihood, shared=self.shared, own=own, features=self.features[rows]
        )

    def score(self, theta, noise, rows):
        self.calls += len(theta) * len(self.means[rows])
        noisy = torch.linalg.inv(self.covariance + noise**2 * self.eye)
        scores = -(theta - self.means[rows][:, None]) @ noisy
        if self.shared is not None:
            scores = scores + self.shared(theta) @ self.covariance @ noisy
        if self.own is not None:
            scores = scores + (self.own[rows] @ self.covariance @ noisy)[:, None]
        return scores

    def log_density(self, theta):
        normal = torch.distributions.MultivariateNormal(self.means[:, None], self.covariance)
        return normal.log_prob(theta)


def gaussian_data(theta, n, seed, likelihood=LIKELIHOOD):
    """x (n, d) of theta (d,)."""
    return theta + normal(n, len(theta), seed=seed) @ torch.linalg.cholesky(likelihood).mT


def fresh_gaussians(likelihood=LIKELIHOOD, **errors):
    """A simulator of one such item at each of parameters theta (k, d), in parts."""

    def fresh(theta, seed):
        for start in range(0, len(theta), ROWS_AT_A_TIME):
            part = theta[start : start + ROWS_AT_A_TIME]
            noise = (
                normal(*part.shape, seed=seeding.derive(seed, start) >> 1)
                @ torch.linalg.cholesky(likelihood).mT
            )
            yield torch.arange(start, start + len(part)), GaussianItems(part + noise, likelihood, **errors)

    return fresh


def exact_posterior(x, likelihood=LIKELIHOOD):
    """Mean (d,) and covariance (d, d) of theta given all x."""
    precision = torch.linalg.inv(likelihood)
    covariance = torch.linalg.inv(torch.eye(len(precision), dtype=torch.float64) + len(x) * precision)
    return covariance @ precision @ x.sum(dim=0), covariance


def moments(d=2):
    """Mean and covariance of the prior."""
    return torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)


def against(draws, mean, covariance):
    """Error of the mean of draws in exact sds (rms over parameters), and the sd ratio of each whitened
    parameter (d,)."""
    away = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (draws - mean).mT, upper=False)
    return math.sqrt(float(away.mean(dim=1).square().mean())), away.std(dim=1).numpy()


def shift_of(error, n, covariance):
    """How far an error of the score of each item (d,) moves the posterior of n items, in its sds (rms over
    parameters)."""
    return n * math.sqrt(float(error @ covariance @ error) / len(error))


class SquareItems:
    """theta ~ N(1/2, 1) in one dimension, x = theta^2 + z / 2: two modes, of unequal heights; scores by
    quadrature on a grid.

    Args:
        x: (n,).
        tilt: added to log densities, the same for every item, times theta; an error that the items share, of
            densities alone.
    """

    theta_dim, evaluations_of_density = 1, 7
    grid = torch.linspace(-4.0, 4.0, 1601, dtype=torch.float64)

    def __init__(self, x, *, tilt=0.0):
        self.x, self.tilt = x, tilt
        logs = self.unnormalized(self.grid)
        self.log_mass = logs.logsumexp(dim=1, keepdim=True) + math.log(float(self.grid[1] - self.grid[0]))
        self.logs = logs - self.log_mass

    def __len__(self):
        return len(self.x)

    @property
    def features(self):
        return self.x[:, None][:, :0]

    def some(self, rows):
        return SquareItems(self.x[rows], tilt=self.tilt)

    def unnormalized(self, theta):
        return -((theta - 0.5) ** 2) / 2 - 2 * (self.x[:, None] - theta**2) ** 2

    def gaussians(self):
        p = self.logs.softmax(dim=1)
        mean = p @ self.grid
        variance = p @ self.grid**2 - mean**2
        return mean[:, None], variance[:, None, None]

    def score(self, theta, noise, rows):
        noise = max(noise, 0.01)
        parts = []
        for point in theta:
            kernel = self.logs[rows] - (point - self.grid) ** 2 / (2 * noise**2)
            parts.append((kernel.softmax(dim=1) @ self.grid - point) / noise**2)
        return torch.stack(parts, dim=1)[..., None]

    def log_density(self, theta):
        return self.unnormalized(theta[:, 0]) - self.log_mass + self.tilt * theta[:, 0]


class Beside:
    """Items of two parameters, each with data of its own: posteriors are products."""

    def __init__(self, *parts):
        self.parts, self.theta_dim = parts, sum(part.theta_dim for part in parts)
        self.evaluations_of_density = parts[0].evaluations_of_density
        self.features = torch.cat([part.features for part in parts], dim=1)

    def some(self, rows):
        return Beside(*(part.some(rows) for part in self.parts))

    def __len__(self):
        return len(self.parts[0])

    def gaussians(self):
        means, covariances = zip(*(part.gaussians() for part in self.parts), strict=True)
        variances = torch.cat([part.diagonal(dim1=1, dim2=2) for part in covariances], dim=1)
        return torch.cat(means, dim=1), torch.diag_embed(variances)

    def score(self, theta, noise, rows):
        return torch.cat(
            [part.score(theta[:, k : k + 1], noise, rows) for k, part in enumerate(self.parts)], dim=2
        )

    def log_density(self, theta):
        return sum(part.log_density(theta[:, k : k + 1]) for k, part in enumerate(self.parts))


def square_data(theta, n, seed):
    return theta**2 + 0.5 * normal(n, seed=seed)


def fresh_squares(**errors):
    def fresh(theta, seed):
        yield torch.arange(len(theta)), SquareItems(square_data(theta[:, 0], len(theta), seed >> 1), **errors)

    return fresh


def exact_square_posterior(x):
    """Grid and probabilities of theta given all x."""
    grid = np.linspace(-4, 4, 40_001)
    logs = -((grid - 0.5) ** 2) / 2 - 2 * ((x.numpy()[:, None] - grid**2) ** 2).sum(axis=0)
    p = np.exp(logs - logs.max())
    return grid, p / p.sum()
