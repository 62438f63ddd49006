"""What the summaries of a weak network know that its scores do not use: noise is taken out of the scores by regression.

Let t be the score of an item at theta, and f its features, summaries and products of two of them. With B such that

    r = f - mean of f - B (t - mean of t),     d / dtheta of the mean of r = 0

r tells nothing of theta by itself, to first order, but where the network is weak the noise of t is correlated with it. Then

    t' = t - K r,     K = Cov(t, r) Var(r)^(-1)

has the same mean and slope as t, and less variance. For data of theta, r depends on theta through t alone, so that all items together shift
the score by a constant. Means and covariances are those of fresh items at a mode; slopes of means are differences between fresh items of
parameters next to it, from the same random numbers. This is the optimal linear estimating function of (t, f) (see `composed.py`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sbi_models.approximators.composition.composed import Calibration, ComposedScore
from sbi_models.approximators.composition.items import Fresh, Items

_WEAK = (0.9, 1.1)
"""Information of scores over that which their scatter implies, outside of which a network is weak."""

_SIMULATIONS, _BESIDE = 4000, 2000
_STEP = 0.3
"""To either side, in sds of the posterior of an item."""

_MOST_UNEVEN = 1e6
"""Condition number of slopes beyond which some direction of theta does not show in the data."""

_NEGLIGIBLE = 1e-3

_RIDGE = 1e-4
_GAIN = 0.02
"""Nats of information an item and parameter that are worth it."""

_MOST_PRODUCTS, _MOST_FEATURES = 16, 200


@dataclass(frozen=True)
class Refinement:
    """A calibration of t', and what t' of all items have less than t: a constant (d,) in theta."""

    calibration: Calibration
    constant: Tensor


def is_weak(calibration: Calibration) -> bool:
    """Whether scores are not what they should be, so that a refinement may pay."""
    ratios = torch.linalg.eigvals(torch.linalg.solve(calibration.variance, calibration.sensitivity)).real
    return bool(ratios.min() < _WEAK[0] or ratios.max() > _WEAK[1])


def refined(composed: ComposedScore, theta: Tensor, precision: Tensor, fresh: Fresh, seed: int) -> Refinement | None:
    """The refinement at theta (d,), or None where items have no features or they tell nothing more.

    Args:
        composed: calibrated at theta.
        theta: the mode.
        precision: of the composed posterior there (d, d); sets the size of steps.
        fresh: simulates items.
        seed: of the simulations.
    """
    assert composed.calibration is not None
    raw = composed.items.features
    if not raw.shape[1]:
        return None
    scores, features = _stacked(composed, theta, fresh(theta, max(_SIMULATIONS, composed.calibration.simulations), seed))
    center, scale = features.mean(dim=0), features.std(dim=0).clamp_min(1e-9)
    products = _products((features - center) / scale)
    steps = _STEP * torch.diag((composed.num_items / torch.diagonal(precision)).sqrt())
    slopes_t, slopes_f = [], []
    for step in steps:
        sides = [fresh(theta + side * step, _BESIDE, seed) for side in (1, -1)]
        (up_t, up_f), (down_t, down_f) = (_stacked(composed, theta, side) for side in sides)
        length = 2 * float(step.norm())
        slopes_t.append((up_t.mean(dim=0) - down_t.mean(dim=0)) / length)
        up, down = (_products((part - center) / scale).mean(dim=0) for part in (up_f, down_f))
        slopes_f.append((up - down) / length)
    sensitivity, slope_of_features = torch.stack(slopes_t, dim=1), torch.stack(slopes_f, dim=1)
    if not float(torch.linalg.cond(sensitivity)) < _MOST_UNEVEN:
        return None
    tilt = torch.linalg.solve(sensitivity.mT, slope_of_features.mT).mT
    mean_t, mean_f = scores.mean(dim=0), products.mean(dim=0)
    rest = products - mean_f - (scores - mean_t) @ tilt.mT
    kept = rest.var(dim=0) > _NEGLIGIBLE * products.var(dim=0)  # what is left of features that are functions of the scores is rounding
    if not bool(kept.any()):
        return None
    rest, tilt, mean_f = rest[:, kept], tilt[kept], mean_f[kept]
    covariance = rest.mT @ rest / len(rest)
    covariance = covariance + _RIDGE * torch.diag(covariance.diagonal())
    shared = (scores - mean_t).mT @ rest / len(rest)
    gain = torch.linalg.solve(covariance, shared.mT).mT
    variance = composed.calibration.variance - gain @ shared.mT
    better = Calibration(composed.calibration.bias, (variance + variance.mT) / 2, sensitivity, composed.calibration.simulations)
    before = Calibration(better.bias, composed.calibration.variance, sensitivity, better.simulations)
    if not float(better.information.logdet() - before.information.logdet()) > _GAIN * len(theta):
        return None
    own = _products((raw - center) / scale)[:, kept].sum(dim=0) - composed.num_items * mean_f
    leftover = own - tilt @ (composed.summed(theta[None])[0] - composed.num_items * mean_t)
    return Refinement(better, gain @ leftover)


def _stacked(composed: ComposedScore, theta: Tensor, fresh: Iterable[Items]) -> tuple[Tensor, Tensor]:
    """Scores (k, d) at theta (d,), and features (k, c), of fresh items."""
    scores, features = [], []
    for items in fresh:
        scores.append(composed.of_items(items, theta[None])[:, 0])
        features.append(items.features)
    return torch.cat(scores), torch.cat(features)


def _products(standard: Tensor) -> Tensor:
    """Features (k, c), and their products of two where there are few enough, or else their squares."""
    c = standard.shape[1]
    if c <= _MOST_PRODUCTS:
        rows, columns = torch.triu_indices(c, c)
        return torch.cat([standard, standard[:, rows] * standard[:, columns]], dim=1)
    return torch.cat([standard, standard.square()], dim=1) if 2 * c <= _MOST_FEATURES else standard[:, :_MOST_FEATURES]
