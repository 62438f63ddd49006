"""Quasi-posterior around one mode of uncalibrated draws, from simulations in a region of it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.composition.checks import Outlier, farthest_item
from sbi_models.approximators.composition.items import Fresh
from sbi_models.approximators.composition.modes import CONVERGED, newton
from sbi_models.approximators.composition.plan import (
    Moments,
    Plan,
)
from sbi_models.approximators.composition.polynomial_density import degree_for, fit_density, fit_points
from sbi_models.approximators.composition.quasi_likelihood import (
    LINE,
    QuasiLikelihood,
    Region,
    Statistic,
    learn_statistic,
)
from sbi_models.approximators.composition.score import ComposedScore

_DRAWS = 2000
"""Number of draws that moments of a calibrated posterior are taken from."""

_PASSES = 6
"""Regions that are tried until one lies where its posterior is."""

_FIRST = (4000, 50)
"""Simulations of a region that is tried, at least, and an item."""

_FIRST_WIDTH = 1.5
"""Covariance of the first region, in that of the uncalibrated draws."""

_MOVED, _GREW, _SHRANK = 0.7, 1.3, 0.4
"""Largest shift, in sds of a region, and largest and smallest ratio of widths of a posterior to the one that
its region was made for."""

_FINE = 2001
_DEAD = -5.0
"""Nats below the top at which a density must have arrived at the ends of a region."""


@dataclass(frozen=True)
class SimulatedItems:
    """A composition with a simulator: composed score, moments of the prior, plan and simulations."""

    composed: ComposedScore
    moments: Moments
    plan: Plan
    fresh: Fresh

    @property
    def num_items(self) -> int:
        """n."""
        return len(self.composed.items)


class ModeCalibration:
    """Quasi-posterior around one mode of uncalibrated draws (s, d); `likelihood` may be None."""

    likelihood: QuasiLikelihood | None = None
    outlying: Outlier
    influence = math.nan

    def __init__(
        self, given: SimulatedItems, draws: Tensor, unknown: Tensor | None, mode: int, *, is_prior: bool
    ) -> None:
        self._given, plan, items = given, given.plan, given.composed.items
        self.simulations = self.evaluations = 0
        self.last_step = self.explained = self.acceptance = math.nan
        n, mean = given.num_items, draws.mean(dim=0)
        covariance = _FIRST_WIDTH * covariance_of(draws) + (0 if unknown is None else unknown)
        for number in range(_PASSES):
            effective_items = 1 if is_prior and number == 0 else n  # what the width of the region is that of
            if int(torch.linalg.cholesky_ex(covariance).info):  # draws that are all alike
                self.likelihood = None
                return
            seed = seeding.derive(plan.seed, "statistic", mode, number) >> 1
            near = Region.around(mean, covariance, given.moments, effective_items)
            wide = Region.around(mean, covariance, given.moments, effective_items, for_statistic=True)
            statistic = learn_statistic(
                near,
                wide,
                given.fresh,
                num_items=effective_items,
                noise=plan.noise,
                number=plan.simulations,
                seed=seed,
            )
            if not statistic.dim:  # all items alike
                self.likelihood = None
                return
            self._total = statistic(items).sum(dim=0)
            self.evaluations += len(statistic.points)
            few = min(plan.simulations, max(_FIRST[0], _FIRST[1] * n))
            settled = self._fit(statistic, near, effective_items, few, seeding.derive(seed, "region"))
            if settled is None:
                return
            widths = (self._covariance.diagonal() / covariance.diagonal()).sqrt()
            settled = settled and float(widths.max()) < _GREW and float(widths.min()) > _SHRANK
            moved = self._mean - mean
            mean, covariance = self._mean, self._covariance + (0 if settled else moved[:, None] * moved)
            if settled:
                break
        else:
            self.likelihood = None
            return
        near = Region.around(mean, covariance, given.moments, n)
        if (
            self._fit(statistic, near, n, plan.simulations, seeding.derive(plan.seed, "calibration", mode))
            is None
        ):
            return
        assert self.likelihood is not None
        self.evaluations += len(statistic.points)
        self.simulations = self.likelihood.simulations
        self.outlying = farthest_item(self.likelihood.scatter(items, self._mean), self.likelihood.residuals)
        _, factor = self.likelihood.slopes(self._mean[None])
        sd = self.likelihood.sd(self._mean[None])[0]
        pull = factor[0].mT @ (self.outlying.away * sd)
        self.influence = math.sqrt(float(pull @ self._covariance @ pull) / len(pull))

    def score(self, theta: Tensor) -> Tensor:
        """Score of the quasi-posterior (m, d) at theta (m, d)."""
        assert self.likelihood is not None
        return self._given.composed.prior(theta) + self.likelihood.score(
            theta, self._total, self._given.num_items
        )

    def draws(self, number: int, generator: torch.Generator) -> Tensor:
        """Draws (number, d) of the quasi-posterior, in random order."""
        assert self.likelihood is not None
        region = self.likelihood.region
        if len(region.center) == 1:
            places, logs = self._line
            masses = (logs - logs.max()).exp()
            levels = torch.cumulative_trapezoid(masses, places)
            levels = torch.cat([levels.new_zeros(1), levels]) / levels[-1]
            wanted = (
                torch.randperm(number, generator=generator)
                + torch.rand(number, generator=generator, dtype=torch.float64)
            ) / number
            right = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
            share = (wanted - levels[right - 1]) / (levels[right] - levels[right - 1]).clamp_min(1e-300)
            return region.theta((places[right - 1] + share * (places[right] - places[right - 1]))[:, None])
        u, self.acceptance = self._surrogate.draw(number, generator)
        return self._mode.center + u @ self._mode.factor.mT

    def _fit(
        self, statistic: Statistic, region: Region, effective_items: int, number: int, seed: int
    ) -> bool | None:
        """Learn the quasi-likelihood in a region; whether its posterior lies there, None if it has none."""
        d = len(region.center)
        self.likelihood = QuasiLikelihood(
            statistic, region, self._given.fresh, num_items=effective_items, number=number, seed=seed >> 1
        )
        if d == 1:
            places = torch.linspace(-LINE, LINE, _FINE, dtype=torch.float64)
            slopes = self.score(region.theta(places[:, None]))[:, 0] * region.factor[0, 0]
            logs = torch.cumulative_trapezoid(slopes, places)
            self._line = places, torch.cat([logs.new_zeros(1), logs])
            logs = self._line[1] - self._line[1].max()
            inside = bool(max(logs[0], logs[-1]) < _DEAD)
        else:
            try:
                self._mode = newton(self.score, region.center, torch.cholesky_inverse(region.factor))
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # what was learned is no density
                self.likelihood = None
                return None
            degree = degree_for(d)
            points = fit_points(d, degree, torch.Generator().manual_seed(seed >> 1))
            self._surrogate = fit_density(points, self._mode.whitened(self.score)(points), degree)
            self.last_step, self.explained = self._mode.last_step, self._surrogate.explained
            inside = self._mode.last_step < CONVERGED
        drawn = self.draws(_DRAWS, torch.Generator().manual_seed(seed >> 1))
        self._mean, self._covariance = drawn.mean(dim=0), covariance_of(drawn)
        moved = float(region.u(self._mean[None]).norm()) / math.sqrt(d)
        return inside and moved < _MOVED


def covariance_of(draws: Tensor) -> Tensor:
    covariance: Tensor = torch.cov(draws.mT).reshape(draws.shape[1], draws.shape[1])
    return covariance
