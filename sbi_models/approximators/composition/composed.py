"""The score of the posterior given all items, at no noise, from scores of single items at a small one.

    g(theta) = s_prior(theta) + W sum_i [t_i(theta) - b(theta)],      t_i = (I + s^2 C_i^(-1)) s_i(theta, s)

s_i is the score of item i at noise s and C_i its covariance: for a Gaussian, t_i is its score without noise. b(theta) is the mean of t
over data x of the parameters theta. Since the mean of d log p(x | theta) / d theta is zero, b would be s_prior, were t right; so the prior
enters once, and what all t_i share of errors cancels. With a simulator at hand, b - s_prior is a mean over fresh data at the mode; without,
what a regression after the training learned of it (`shared_bias.py`), or zero. W is the identity, or, from the same fresh data, what makes
the sum an unbiased and calibrated score where t is noisy:

    W = H^T V^(-1),     H = mean of -dt / dtheta + d s_prior / dtheta,     V = covariance of t over data of theta

(V. P. Godambe, An optimum property of regular maximum likelihood estimation, Annals of Mathematical Statistics 31, 1960; for composite
scores, C. Varin, N. Reid and D. Firth, Statistica Sinica 21, 2011.) For exact scores H = V is Fisher's information of one item.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from sbi_models.approximators.composition.items import Items, chunks, sharpening
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.shared_bias import Learned
from sbi_models.approximators.composition.typical import MOST, Contradicted, least_typical

_STEP = 0.25
"""Of central differences, in sds of one item."""

_SLOPES = 10_000
"""Fresh items that slopes are taken from."""

_INFORMATIVE = 0.1
"""Information of an item, in units of that of the prior, below which it is small."""

_CERTAIN, _SURE = 0.99, 3.0
"""A bias below the first quantile of its noise is taken for none; one whose square is so many times larger, for what it is."""


@dataclass(frozen=True)
class Calibration:
    """What fresh data of parameters theta (d,) say about t.

    Attributes:
        bias: mean of t minus s_prior (d,).
        variance: V (d, d).
        sensitivity: H (d, d).
        simulations: number of data.
    """

    bias: Tensor
    variance: Tensor
    sensitivity: Tensor
    simulations: int

    @property
    def removed(self) -> Tensor:
        """The bias that is to be subtracted (d,): none where it may be the noise of its mean, in between in part.

        A calibration then adds no noise to scores that need none.
        """
        return self.bias * share_of_bias(self.bias, self.variance / self.simulations)

    @property
    def information(self) -> Tensor:
        """Of one item about theta (d, d) through t: H^T V^(-1) H."""
        information: Tensor = self.sensitivity.mT @ torch.linalg.solve(self.variance, self.sensitivity)
        return information

    @property
    def is_informative(self) -> bool:
        """Whether an item tells something about every direction of theta."""
        return float(torch.linalg.eigvalsh(self.variance).min()) >= _INFORMATIVE and float(torch.linalg.det(self.information)) > 0

    @property
    def weight(self) -> Tensor:
        """W (d, d); the identity where an item tells next to nothing about some direction, and H V^(-1) is a ratio of noises."""
        if not self.is_informative:
            return torch.eye(len(self.bias), dtype=self.bias.dtype)
        weight: Tensor = torch.linalg.solve(self.variance, self.sensitivity).mT
        return weight


LearnedMean = Callable[[Tensor], Learned]


def share_of_bias(bias: Tensor, variance: Tensor) -> float:
    """How much of an estimated bias (d,) is to be removed, given the covariance (d, d) of its estimate."""
    squared = float(bias @ torch.linalg.solve(variance, bias))
    threshold = 2 * float(gammaincinv(len(bias) / 2, _CERTAIN))  # quantile of chi squared
    return min(1.0, max(0.0, (squared - threshold) / ((_SURE - 1) * threshold)))


class ComposedScore:
    """g above for points theta (m, d), float64, standardised space.

    Args:
        items: at least one.
        prior: score of the prior.
        noise: s, in units of standardised parameters.
        learned: b (m, d) at theta (m, d), as a training left it, and the variance of its estimate.

    Attributes:
        share: of the learned bias that is subtracted, 0 to 1.
        constant: what a refinement takes from the sum (d,).
        evaluations: scores of the network that were computed for each item so far.
    """

    def __init__(self, items: Items, prior: PriorScore, noise: float, learned: LearnedMean | None = None) -> None:
        self.items, self.prior, self.noise, self.learned = items, prior, noise, learned
        self.means, self.covariances = items.gaussians()
        self._sharpened = sharpening(self.covariances, noise)
        self.calibration: Calibration | None = None
        self._scattered: tuple[Tensor, Tensor] | None = None
        self.share = 0.0
        self.constant = torch.zeros(items.theta_dim, dtype=torch.float64)
        self.evaluations = 0

    @property
    def num_items(self) -> int:
        """n."""
        return len(self.items)

    def __call__(self, theta: Tensor) -> Tensor:
        """g at theta (m, d), of the same shape."""
        prior, n = self.prior(theta), self.num_items
        total = self.summed(theta) - n * prior
        if self.learned is not None and self.share:
            total -= n * self.share * (self.learned(theta).correction - prior)
        if self.calibration is not None:
            total = (total - n * self.calibration.removed - self.constant) @ self.calibration.weight.mT
        return prior + total

    def use_learned(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract of the learned bias what is certain at theta (d,); returns it there (d,), and the covariance of its estimate (d, d)."""
        assert self.learned is not None
        mean, variance = self.learned(theta[None])
        bias, covariance = (mean - self.prior(theta[None]))[0], torch.diag(variance[0])
        self.share = share_of_bias(bias, covariance)
        return bias, covariance

    def summed(self, theta: Tensor) -> Tensor:
        """Sum of t_i over all items at theta (m, d), exact, some items at a time."""
        total = torch.zeros_like(theta)
        for rows in chunks(self.num_items, len(theta)):
            total += torch.einsum("kij,kmj->mi", self._sharpened[rows], self.items.score(theta, self.noise, rows))
        self.evaluations += len(theta)
        return total

    def of_items(self, items: Items, theta: Tensor) -> Tensor:
        """t of other items at theta (m, d), shape (k, m, d)."""
        sharpened = sharpening(items.gaussians()[1], self.noise)
        parts = [items.score(theta, self.noise, rows) for rows in chunks(len(items), len(theta))]
        return torch.einsum("kij,kmj->kmi", sharpened, torch.cat(parts))

    def calibrate(self, theta: Tensor, fresh: Iterable[Items]) -> Calibration:
        """Learn bias and weight at theta (d,) from items simulated there; `self.calibration` is replaced."""
        self.constant = torch.zeros_like(theta)
        spread = torch.diagonal(self.covariances, dim1=-2, dim2=-1).mean(dim=0).sqrt()
        d, step = len(theta), _STEP * torch.diag(spread)
        points = torch.cat([theta[None], theta + step, theta - step])
        count, sloped, mean, square, slope = 0, 0, torch.zeros(d).double(), torch.zeros(d, d).double(), torch.zeros(d, d).double()
        kept: list[Tensor] = []
        for items in fresh:
            sharpened = sharpening(items.gaussians()[1], self.noise)
            for rows in chunks(len(items), len(points)):
                at = points if sloped < _SLOPES else points[:1]
                t = torch.einsum("kij,kmj->kmi", sharpened[rows], items.score(at, self.noise, rows))
                kept += [t[:, 0]] if count < MOST else []
                count += len(t)
                mean += t[:, 0].sum(dim=0)
                square += t[:, 0].mT @ t[:, 0]
                if at is points:
                    sloped += len(t)
                    slope += (t[:, 1 : d + 1] - t[:, d + 1 :]).sum(dim=0) / (2 * _STEP * spread[:, None])
        mean = mean / count
        prior = self.prior(points)
        prior_slope = (prior[1 : d + 1] - prior[d + 1 :]) / (2 * _STEP * spread[:, None])
        variance = square / count - mean[:, None] * mean
        sensitivity = prior_slope.mT - slope.mT / sloped
        self.calibration = Calibration(mean - prior[0], variance, sensitivity, count)
        self._scattered = theta, torch.cat(kept)
        return self.calibration

    def least_typical(self) -> Contradicted:
        """The item that fits least to the fresh ones of the last calibration."""
        assert self._scattered is not None
        theta, fresh = self._scattered
        self.evaluations += 1
        return least_typical(self.of_items(self.items, theta[None])[:, 0], fresh)

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
        # Items know at least what the prior knows; their Gaussians are rough, and what is left of their sum may be too small.
        values, axes = torch.linalg.eigh(symmetric(precision))
        floor = torch.linalg.eigvalsh(total).min() / (10 * n)
        precision = axes @ torch.diag(values.clamp_min(floor)) @ axes.mT
        return middle - (n - 1) * torch.linalg.solve(precision, around[0]), precision


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part of a matrix."""
    return (matrix + matrix.mT) / 2


def shift_in_sds(score: Tensor, precision: Tensor) -> float:
    """How far a constant (d,) added to the score moves a Gaussian of this precision, in its sds (rms over dimensions)."""
    return math.sqrt(float(score @ torch.linalg.solve(precision, score)) / len(score))
