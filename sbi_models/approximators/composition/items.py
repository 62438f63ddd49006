"""Posteriors of single items: scores at a noise level, rough Gaussians and densities."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from sbi_models.networks import DiffusionModel
from sbi_models.networks.diffusion import GaussianDenoiser
from sbi_models.types import Array

ROWS_PER_CALL = 2**15
"""Pairs of an item and a point in one call of the network: bounds memory."""

_DRAWN, _DRAWS = 64, 64
"""Items of a network without a head that are drawn from, and draws of each."""

_STEPS = 16


class Items(Protocol):
    """Posteriors p(theta | x_i) of one theta (d,) given each of n items, standardized space, float64."""

    @property
    def theta_dim(self) -> int:
        """d."""

    @property
    def features(self) -> Tensor:
        """Further features of the items (n, c), such as their summaries; c may be 0."""

    def __len__(self) -> int:
        """n."""

    def score(self, theta: Tensor, noise: float, rows: slice) -> Tensor:
        """Scores (k, m, d) of theta + noise * z, z ~ N(0, I), given some of the items, at theta (m, d)."""

    def gaussians(self) -> tuple[Tensor, Tensor]:
        """Rough means (n, d) and covariances (n, d, d).

        They set scales, and take the small noise out to first order.
        """

    def some(self, rows: Array) -> "Items":
        """Some of the items, by their positions."""

    def log_density(self, theta: Tensor) -> Tensor:
        """Log p(theta | x_i) in nats at theta (m, d), shape (n, m), from all noise levels."""

    @property
    def evaluations_of_density(self) -> int:
        """Calls of the network that `log_density` takes for each item and point."""


Fresh = Callable[[Tensor, int], Iterable[tuple[Tensor, Items]]]
"""One item simulated at each of parameters theta (k, d), standardized space, from a seed: some at a time,
those whose simulation did not fail, with their row numbers (r,). Up to `ROWS_AT_A_TIME` come in one part."""

ROWS_AT_A_TIME = 16_384


class DiffusionItems:
    """Items of a trained diffusion model.

    Args:
        network: trained network, on any device.
        conditions: conditions of the network, (n, condition_dim).
        seed: seed of the draws that give the Gaussians of a network without a head for them.
        like: items whose average Gaussian stands for those of such a network.
    """

    def __init__(
        self, network: DiffusionModel, conditions: Tensor, *, seed: int, like: "DiffusionItems | None" = None
    ) -> None:
        self.network, self.conditions, self.seed, self.like = network, conditions, seed, like
        self.theta_dim: int = network.theta_dim
        self._all: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.conditions)

    @property
    def features(self) -> Tensor:
        """See `Items`: the conditions of the network."""
        return self.conditions.to("cpu", torch.float64)

    @torch.no_grad()
    def score(self, theta: Tensor, noise: float, rows: slice) -> Tensor:
        """See `Items`."""
        given = self.conditions[rows]
        t, alpha = time_of(self.network, noise)
        points = (alpha * theta).to(given).expand(len(given), *theta.shape)
        scores = self.network.score(points, points.new_full((1, 1, 1), t), given[:, None, :])
        return alpha * scores.to("cpu", torch.float64)

    @torch.no_grad()
    def own_scores(self, theta: Tensor, noise: float) -> Tensor:
        """Score (n, d) of each item at its row of theta (n, d), with the noise taken out to first order."""
        t, alpha = time_of(self.network, noise)
        points = (alpha * theta).to(self.conditions)
        scores = alpha * self.network.score(points, points.new_full((1, 1), t), self.conditions).to(
            "cpu", torch.float64
        )
        return torch.einsum("nij,nj->ni", sharpening(self.gaussians()[1], noise), scores)

    @torch.no_grad()
    def gaussians(self) -> tuple[Tensor, Tensor]:
        """See `Items`; from the Gaussian head, otherwise the average over draws of some items."""
        if self._all is None and not isinstance(self.network.denoiser, GaussianDenoiser):
            means, covariances = (
                self._drawn(self.conditions[:_DRAWN]) if self.like is None else self.like.gaussians()
            )
            self._all = tuple(
                part.mean(dim=0).expand(len(self), *part.shape[1:]) for part in (means, covariances)
            )  # type: ignore[assignment]
        elif self._all is None:
            parts = [self._from_head(self.conditions[rows]) for rows in chunks(len(self), 1)]
            means, covariances = (
                torch.cat(part).to("cpu", torch.float64) for part in zip(*parts, strict=True)
            )
            self._all = means, covariances
        assert self._all is not None
        return self._all

    def some(self, rows: Array) -> "DiffusionItems":
        """See `Items`."""
        return DiffusionItems(
            self.network, self.conditions[torch.as_tensor(rows)], seed=self.seed, like=self.like
        )

    def log_density(self, theta: Tensor) -> Tensor:
        """See `Items`: by the probability flow of the network."""
        values = []
        for rows in chunks(len(self), len(theta)):
            given = self.conditions[rows]
            points = theta.to(given).repeat(len(given), 1)
            values.append(
                self.network.log_prob(points, given.repeat_interleave(len(theta), dim=0)).reshape(
                    len(given), len(theta)
                )
            )
        return torch.cat(values).to("cpu", torch.float64)

    @property
    def evaluations_of_density(self) -> int:
        """See `Items`."""
        return 4 * self.network.density_steps

    def _from_head(self, given: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.network.denoiser, GaussianDenoiser)
        mean, factor = self.network.denoiser.gaussian(given)
        return mean, factor @ factor.mT

    def _drawn(self, given: Tensor) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        draws = self.network.sample(_DRAWS, given, generator, sampler="dpm", steps=_STEPS).to(torch.float64)
        mean = draws.mean(dim=1)
        away = draws - mean[:, None, :]
        floor = 1e-6 * torch.eye(self.theta_dim, dtype=away.dtype, device=away.device)
        return mean, away.mT @ away / (_DRAWS - 1) + floor


def time_of(network: DiffusionModel, noise: float) -> tuple[float, float]:
    """The time of a network at which theta_t / alpha is theta with noise of this sd, and its alpha."""
    log_snr = torch.tensor(-2 * math.log(noise), dtype=torch.float64)
    t = network.schedule.time(log_snr).clamp(0, 1)
    return float(t), float(network.schedule.alpha(t))


def chunks(num_items: int, num_points: int) -> Iterator[slice]:
    """Slices of items that fit into one call of the network, at so many points each."""
    step = max(1, ROWS_PER_CALL // num_points)
    for start in range(0, num_items, step):
        yield slice(start, min(start + step, num_items))


def sharpening(covariances: Tensor, noise: float) -> Tensor:
    """I + s^2 C_i^(-1) (n, d, d), which takes the noise out of scores to first order.

    C_i is kept from being narrower than the noise, where the first order is no guide.
    """
    values, axes = torch.linalg.eigh(covariances)
    sharpening: Tensor = axes @ torch.diag_embed(1 + noise**2 / values.clamp_min(noise**2)) @ axes.mT
    return sharpening
