"""Gaussian items without a network: theta ~ N(0, I_4), items N(theta, S).

S has the eigenvalues 0.1, 0.5, 2 and 4.

Scores are exact, or have errors of 0.002 / s that all items share and of 0.01 / s of each its own, at noise
s.
"""

import math

import numpy as np
import torch

from sbi_models import seeding
from sbi_models.approximators.composition.calibrated import calibrated
from sbi_models.approximators.composition.plan import Plan
from sbi_models.approximators.composition.report import CompositionReport


class Gaussians:
    """Items with Gaussian posteriors, and scores that are exact or have errors in 1 / s, smooth in theta."""

    def __init__(self, x, likelihood, errors, seed):
        self.theta_dim, self.x, self.likelihood, self.errors = x.shape[1], x, likelihood, errors
        precision = torch.linalg.inv(likelihood)
        self.eye = torch.eye(self.theta_dim).double()
        self.covariance = torch.linalg.inv(self.eye + precision)
        self.means = x @ (self.covariance @ precision).mT
        shared, own = torch.Generator().manual_seed(1), torch.Generator().manual_seed(seed)
        self.waves = 0.7 * torch.randn(16, self.theta_dim, generator=shared).double()
        self.heights, self.phases = (
            torch.randn(16, self.theta_dim, generator=shared).double(),
            6.3 * torch.rand(16, generator=shared).double(),
        )
        if errors[1]:
            self.own_heights = torch.randn(len(x), 16, self.theta_dim, generator=own).double()
            self.own_phases = 6.3 * torch.rand(len(x), 16, generator=own).double()

    def __len__(self):
        return len(self.x)

    @property
    def features(self):
        return self.x[:, :0]

    def some(self, rows):
        chosen = Gaussians(self.x[rows], self.likelihood, self.errors, 0)
        if self.errors[1]:
            chosen.own_heights, chosen.own_phases = self.own_heights[rows], self.own_phases[rows]
        return chosen

    def gaussians(self):
        return self.means, self.covariance.expand(len(self), -1, -1)

    def score(self, theta, noise, rows):
        scores = -(theta - self.means[rows][:, None]) @ torch.linalg.inv(
            self.covariance + noise**2 * self.eye
        )
        if self.errors[0]:
            angles = theta @ self.waves.mT + math.log(noise)
            scores = scores + self.errors[0] / noise / 8**0.5 * torch.cos(angles + self.phases) @ self.heights
            own = torch.cos(angles + self.own_phases[rows][:, None])
            scores = scores + self.errors[1] / noise / 8**0.5 * own @ self.own_heights[rows]
        return scores


class AnalyticBed:
    """Composition of Gaussian items without any network."""

    def __init__(self, errors):
        self.errors, d = errors, 4
        axes, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0)).double())
        self.likelihood = axes @ torch.diag(torch.tensor([0.1, 0.5, 2.0, 4.0]).double()) @ axes.mT

    def data(self, theta, n, seed):
        noise = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)).double()
        return theta + noise @ torch.linalg.cholesky(self.likelihood).mT

    def run(self, n: int, seed: int, simulator: bool, num_draws: int) -> tuple[np.ndarray, CompositionReport]:
        """Draws (num_draws, 4) of the composed posterior in units of the exact one, and the report."""
        theta = torch.randn(4, generator=torch.Generator().manual_seed(seed)).double()
        x = self.data(theta, n, seed + 1)
        identity = torch.eye(4).double()

        def fresh(theta, number, seed):
            for start in range(0, number, 16384):
                part = seeding.derive(seed, start) >> 1
                yield Gaussians(
                    self.data(theta, min(16384, number - start), part), self.likelihood, self.errors, part
                )

        plan = Plan(0.02, min(max(4000, 200 * n), 500_000), seed, (0.01, 0.02, 0.05, 0.1, 0.2))
        moments, items = (torch.zeros(4).double(), identity), Gaussians(x, self.likelihood, self.errors, seed)
        draws, report = calibrated(
            items, torch.neg, moments, num_draws, plan, fresh=fresh if simulator else None
        )
        inverse = torch.linalg.inv(self.likelihood)
        covariance = torch.linalg.inv(identity + n * inverse)
        away = (draws - covariance @ inverse @ x.sum(0)) @ torch.linalg.inv(
            torch.linalg.cholesky(covariance)
        ).mT
        return away.numpy(), report


BEDS = {"analytic": AnalyticBed((0.0, 0.0)), "noisy": AnalyticBed((0.002, 0.01))}
