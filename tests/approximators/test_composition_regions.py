"""Regions in which a composition is calibrated: their width and the polynomials in them, by the number of
items; and how many simulations and draws there are."""

import math
from types import SimpleNamespace

import pytest
import torch
from exact_items import GaussianItems, SquareItems, fresh_gaussians, gaussian_data, moments, square_data

from sbi_models.approximators.composition.calibrated import calibrated
from sbi_models.approximators.composition.modes import Mode, relative_log_densities
from sbi_models.approximators.composition.plan import Plan
from sbi_models.approximators.composition.quasi_likelihood import (
    _ITEMS,
    _NARROW,
    _REACH,
    _WIDENED,
    _WIDENED_MORE,
    QuasiLikelihood,
    Region,
)
from sbi_models.approximators.composition.score import ComposedScore
from sbi_models.approximators.composition.uncalibrated import _weights

THETA = torch.tensor([0.4, -0.9], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64)


class Values:
    """A statistic of items that is their data."""

    dim = 2

    def __call__(self, items):
        return items.x


def composed(n, draws, simulations):
    """Draws of n items with a simulator, and the number of its rows in each call."""
    rows = []

    def fresh(theta, seed):
        rows.append(len(theta))
        yield from fresh_gaussians()(theta, seed)

    items = GaussianItems(gaussian_data(THETA, n, seed=1))
    plan = Plan(noise=0.02, simulations=simulations, seed=1)
    return calibrated(items, torch.neg, moments(), draws, plan, fresh=fresh)[0], rows


@pytest.mark.parametrize("draws", [1, 7])
def test_as_many_draws_as_were_asked_for_with_a_simulator(draws):
    """Few draws are few, though more of them are computed for the calibration."""
    assert composed(3, draws, 2000)[0].shape == (draws, 2)


def test_regions_that_are_tried_have_fifty_simulations_an_item():
    """With 120 items all calls but the test at the end have the 6000 that 50 an item are."""
    assert composed(120, 5, 6000)[1][:3] == [6000] * 3


@pytest.mark.parametrize("n", [1, _NARROW - 1, _NARROW, 4 * _NARROW])
@pytest.mark.parametrize("for_statistic", [False, True, None])
def test_regions_are_a_posterior_widened_within_the_reach_of_the_prior(n, for_statistic):
    """Precisions of the widened posterior and the prior add up, means are weighed by them."""
    chosen = {} if for_statistic is None else {"for_statistic": for_statistic}
    region = Region.around(THETA, COVARIANCE, moments(), n, **chosen)
    widened = _WIDENED_MORE if n >= _NARROW else _WIDENED
    if for_statistic:
        widened = max(_WIDENED, math.sqrt(n / _ITEMS))
    precision = torch.linalg.inv(COVARIANCE) / widened**2
    whole = torch.linalg.inv(precision + torch.eye(2) / _REACH**2)
    torch.testing.assert_close(region.factor @ region.factor.mT, whole)
    torch.testing.assert_close(region.center, whole @ precision @ THETA)


def test_the_polynomials_of_a_quasi_likelihood_depend_on_the_number_of_items():
    """Those of many items are of one degree from _NARROW items on, which is not that of fewer."""
    region = Region(torch.zeros(1).double(), torch.eye(1).double())

    def fresh(theta, seed):
        both = torch.cat([theta, theta.square()], dim=1)
        yield from fresh_gaussians()(both, seed)

    few, first, many = (
        QuasiLikelihood(Values(), region, fresh, num_items=n, number=4000, seed=1).leverage
        for n in (_NARROW - 1, _NARROW, 2 * _NARROW)
    )
    assert first == many
    assert first != pytest.approx(few, rel=0.05)


def test_modes_weigh_by_height_and_volume():
    """Probabilities of modes are their densities times the volumes of their factors, with equal shapes."""
    items = SquareItems(square_data(0.9, 3, seed=3))
    composed = ComposedScore(items, lambda theta: 0.5 - theta, 0.02)
    factors, centers = [0.2, 0.6], torch.tensor([[-0.9], [0.8]], dtype=torch.float64)
    modes = [
        Mode(center, torch.tensor([[factor]], dtype=torch.float64), 0.0)
        for center, factor in zip(centers, factors, strict=True)
    ]
    shape = SimpleNamespace(log_mass=lambda generator: 0.0)
    heights = relative_log_densities(composed, centers, None, 1)
    assert abs(heights[1]) > 0.3
    expected = heights.exp() * torch.tensor(factors)
    found = _weights(composed, modes, [shape, shape], None, 1)
    assert found == pytest.approx((expected / expected.sum()).numpy())
