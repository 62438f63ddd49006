"""Score of the posterior given all items, without noise, from scores of single items at small noise.

    g(theta) = s_prior(theta) + sum_i [t_i(theta) - b(theta)],      t_i = (I + s^2 C_i^(-1)) s_i(theta, s)

s_i is the score of item i at noise s and C_i its covariance: for a Gaussian, t_i is its score without noise.
b(theta) is the mean of t over data x of the parameters theta. Since the mean of d log p(x | theta) / d theta
is zero, b would be s_prior, were t right; what a regression after the training learned of b - s_prior
(`shared_bias.py`) is subtracted where it is certain.
"""

import math
from collections.abc import Callable

import torch
from scipy.special import gammaincinv
from torch import Tensor

from sbi_models.approximators.composition.items import Items, chunks, sharpening
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.shared_bias import SharedBiasEstimate

_STEP = 0.25
"""Step of central differences, in sds of one item."""

_CERTAIN, _SURE = 0.99, 3.0
"""A bias below the first quantile of its noise is taken for none; one whose square is so many times larger,
for what it is."""

_NEAR = 4.0
"""Sds of the posterior around its top within which a learned bias is followed."""

SharedMean = Callable[[Tensor], SharedBiasEstimate]


def share_of_bias(bias: Tensor, variance: Tensor) -> float:
    """Share of an estimated bias (d,) to remove, 0 to 1, given the covariance (d, d) of its estimate."""
    squared = float(bias @ torch.linalg.solve(variance, bias))
    threshold = 2 * float(gammaincinv(len(bias) / 2, _CERTAIN))  # quantile of chi squared
    return min(1.0, max(0.0, (squared - threshold) / ((_SURE - 1) * threshold)))


class ComposedScore:
    """g above for points theta (m, d), float64, standardized space.

    Args:
        items: items of one composition, at least one.
        prior: score of the prior.
        noise: s, in units of standardized parameters.
        learned: b (m, d) at theta (m, d), as a training left it, and the variance of its estimate.

    Attributes:
        share: share of the learned bias that is subtracted, 0 to 1.
        evaluations: scores of the network that were computed for each item so far.
    """

    def __init__(
        self, items: Items, prior: PriorScore, noise: float, learned: SharedMean | None = None
    ) -> None:
        self.items, self.prior, self.noise, self.learned = items, prior, noise, learned
        self.means, self.covariances = items.gaussians()
        self._sharpened = sharpening(self.covariances, noise)
        self.share = 0.0
        self.evaluations = 0

    @property
    def num_items(self) -> int:
        """n."""
        return len(self.items)

    def __call__(self, theta: Tensor) -> Tensor:
        """g at theta (m, d), of the same shape."""
        return self.prior(theta) + self.summed(theta) - self.num_items * self.center(theta)

    def center(self, theta: Tensor) -> Tensor:
        """b (m, d) at theta (m, d): the score of the prior, and what is certain of the shared errors."""
        prior = self.prior(theta)
        if self.learned is None or not self.share:
            return prior
        near = torch.minimum(torch.maximum(theta, self._near[0]), self._near[1])
        return prior + self.share * (self.learned(near).correction - self.prior(near))

    def use_learned(self, theta: Tensor, sd: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract of the learned bias what is certain at theta (d,), where the posterior is, with sds (d,).

        Farther out it stays what it is at the edge: n times a polynomial that runs away would be a mode of
        its own.

        Returns:
            The bias at theta (d,), and the covariance of its estimate (d, d).
        """
        assert self.learned is not None
        self._near = theta - _NEAR * sd, theta + _NEAR * sd
        mean, variance = self.learned(theta[None])
        bias, covariance = (mean - self.prior(theta[None]))[0], torch.diag(variance[0])
        self.share = share_of_bias(bias, covariance)
        return bias, covariance

    def summed(self, theta: Tensor) -> Tensor:
        """Sum of t_i over all items at theta (m, d), exact, some items at a time."""
        total = torch.zeros_like(theta)
        for rows in chunks(self.num_items, len(theta)):
            total += torch.einsum(
                "kij,kmj->mi", self._sharpened[rows], self.items.score(theta, self.noise, rows)
            )
        self.evaluations += len(theta)
        return total

    def start(self) -> tuple[Tensor, Tensor]:
        """Mean (d,) and precision (d, d) of the composed posterior, were all items and the prior Gaussian."""
        precisions = torch.linalg.inv(self.covariances)
        total = precisions.sum(dim=0)
        middle = torch.linalg.solve(total, torch.einsum("kij,kj->i", precisions, self.means))
        d, n = len(middle), self.num_items
        step = _STEP * torch.eye(d, dtype=middle.dtype)
        around = self.prior(torch.cat([middle[None], middle + step, middle - step]))
        prior_precision = symmetric(around[d + 1 :] - around[1 : d + 1]) / (2 * _STEP)
        precision = total - (n - 1) * prior_precision
        # Items know at least what the prior knows; their Gaussians are rough, and what is left of their sum
        # may be too small.
        values, axes = torch.linalg.eigh(symmetric(precision))
        floor = torch.linalg.eigvalsh(total).min() / (10 * n)
        precision = axes @ torch.diag(values.clamp_min(floor)) @ axes.mT
        return middle - (n - 1) * torch.linalg.solve(precision, around[0]), precision


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part of a matrix."""
    return (matrix + matrix.mT) / 2


def shift_in_sds(score: Tensor, precision: Tensor) -> float:
    """Shift of a Gaussian of this precision by a constant (d,) added to its score, in sds (rms)."""
    return math.sqrt(float(score @ torch.linalg.solve(precision, score)) / len(score))
