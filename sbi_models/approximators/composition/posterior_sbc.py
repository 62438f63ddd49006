"""Posterior simulation-based calibration: a test of composed draws that knows nothing of how they were made.

Take draws theta_k of the posterior given the items x, simulate as many items x_k of each, and weigh all draws
by the likelihood of x_k, so that they are draws given x and x_k. Were the posterior right, theta_k would be a
draw of that posterior, and its rank among them uniform (T. Saeilynoja, M. Schmitt, P.-C. Buerkner, A.
Vehtari, Posterior SBC: simulation-based calibration checking conditional on data, 2025). A posterior that is
off by b sds makes ranks that are off by about b / sqrt(2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

from sbi_models.approximators.composition.polynomial_density import Monomials, degree_for, num_points

LogSlopes = Callable[[Tensor, Tensor], Tensor]
"""d log L / d theta (k, m, d) of the items simulated at each of parameters (k, d), at points theta (m, d)."""

MOST_REPLICATES, FEWEST_REPLICATES = 200, 20
_ITEMS = 100_000
"""Items to be simulated at most, where that is enough for the fewest replicates."""

_LINE_DEGREE, _LINE_POINTS = 6, 40
_SPREAD = 1.2


@dataclass(frozen=True)
class PosteriorCalibration:
    """Outcome of the test.

    Attributes:
        p_value: p-value of uniform ranks, by means and variances of each parameter and of all together
            (Bonferroni).
        shift: distance of the draws from right ones, in posterior sds, of the parameter that is farthest off.
        variance: the normal scores of ranks, of the parameter whose is farthest from 1: above 1, draws are
            too narrow.
        joint_variance: the mean of those variances along axes in which the posterior is not correlated.
    """

    p_value: float
    shift: float
    variance: float
    joint_variance: float


def replicates_of(num_items: int) -> int:
    """Draws to simulate data sets of, for so many items."""
    return max(FEWEST_REPLICATES, min(MOST_REPLICATES, _ITEMS // num_items))


def posterior_calibration(draws: Tensor, number: int, log_slopes: LogSlopes) -> PosteriorCalibration:
    """Test draws (s, d) of a unimodal posterior, in random order, by data simulated at the first `number`.

    The log likelihood is a polynomial that fits its slopes at some points.
    """
    d = draws.shape[1]
    mean, factor = _scale(draws)
    u = _axes(draws, mean, factor)
    degree = _LINE_DEGREE if d == 1 else degree_for(d)
    monomials = Monomials(d, degree)
    points = _SPREAD * u[-(_LINE_POINTS if d == 1 else num_points(d, degree)) :]
    slopes = log_slopes(draws[:number], mean + points @ factor.mT) @ factor
    matrix = torch.einsum("ml,jlk->mjk", monomials(points), monomials.slopes)[:, :, 1:].flatten(0, 1)
    gram = matrix.mT @ matrix
    gram = gram + 1e-8 * torch.diag(gram.diagonal())
    coefficients = torch.linalg.solve(gram, matrix.mT @ slopes.flatten(1).mT)
    return calibration_of((monomials(u)[:, 1:] @ coefficients).mT, draws)


def calibration_of(logs: Tensor, draws: Tensor) -> PosteriorCalibration:
    """Test draws (s, d), in random order, of a posterior of any shape.

    Args:
        logs: log likelihoods (k, s) of the data sets simulated at the first k draws, at every draw, up to a
            constant of each data set.
        draws: the draws.
    """
    number, d = len(logs), draws.shape[1]
    u = _axes(draws, *_scale(draws))
    logs = logs.clone()
    logs[torch.arange(number), torch.arange(number)] = -math.inf  # a draw is not ranked among itself
    weights = torch.softmax(logs, dim=1)
    size = 1 / weights.square().sum(dim=1, keepdim=True)
    scores = {}
    for name, values in (("parameters", draws), ("axes", u)):
        below = (values[None] < values[:number, None]).to(weights)
        ranks = torch.einsum("ks,ksd->kd", weights, below)
        scores[name] = torch.special.ndtri((ranks * size + 0.5) / (size + 1))
    means, squares = scores["parameters"].mean(dim=0), scores["parameters"].var(dim=0)
    p_value = _p_value(number * means.square(), (number - 1) * squares, 1, number - 1)
    joint = scores["axes"].var(dim=0).mean()
    if d > 1:  # of all together, along axes in which the posterior is not correlated
        squared = number * scores["axes"].mean(dim=0).square().sum()
        p_value = 2 * min(
            p_value, _p_value(squared[None], (d * (number - 1) * joint)[None], d, d * (number - 1))
        )
    farthest, widest = int(means.abs().argmax()), int(squares.log().abs().argmax())
    return PosteriorCalibration(
        min(1.0, p_value), math.sqrt(2) * float(means[farthest]), float(squares[widest]), float(joint)
    )


def _scale(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,), and Cholesky factor (d, d) of the covariance, of draws (s, d)."""
    d = draws.shape[1]
    return draws.mean(dim=0), torch.linalg.cholesky(torch.cov(draws.mT).reshape(d, d))


def _axes(draws: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Draws (s, d) along axes in which they are not correlated, in sds."""
    along: Tensor = torch.linalg.solve_triangular(factor, (draws - mean).mT, upper=False)
    return along.mT


def _p_value(means: Tensor, variances: Tensor, of_means: int, of_variances: int) -> float:
    """Bonferroni p-value of squared means, upper tails, and of variances, both tails, by chi-squared laws."""
    tails = chi2.cdf(variances.numpy(), of_variances)
    each = [chi2.sf(means.numpy(), of_means), 2 * np.minimum(tails, 1 - tails)]
    return 2 * len(means) * float(np.min(each))
