"""Items that do not go together are found, and no others."""

import math

import pytest
import torch
from exact_items import GaussianItems
from test_composition_calibrated import THETA, compose, fresh_gaussians, gaussian_data

from sbi_models.approximators.composition.checks import farthest_item


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.nightly_cases("1", "100")
@pytest.mark.parametrize("n", [1, 5, 100])
def test_p_values_are_those_of_the_farthest(n):
    """For items like the fresh ones, correlated and of any scale, p < q has its probability, within four
    standard errors of 400 sets."""
    mix = torch.tensor([[30.0, 0.0], [-20.0, 0.1]], dtype=torch.float64)
    fresh = normal(20_000, 2, 1) @ mix + 5
    found = torch.tensor([farthest_item(normal(n, 2, 10 + k) @ mix + 5, fresh).p_value for k in range(400)])
    for q in (0.02, 0.1, 0.3):
        exact = 1 - (1 - q / n) ** n
        assert float((found < q).double().mean()) == pytest.approx(exact, abs=4 * math.sqrt(q / 400))


def test_ordinary_values_of_discrete_items_are_not_far_out():
    """Of items of two values, each as far out as many fresh ones but for rounding, the p-value is at least
    the share of that value."""
    for share in (0.5, 0.2, 0.01):
        fresh = torch.where(torch.arange(5000) < 5000 * share, 0.1 + 0.2, 0.0).double()[:, None] / 3
        own = torch.tensor([[0.1], [0.0], [0.0]]).double()
        assert farthest_item(own, fresh).p_value >= share


def test_the_farthest_item_is_named():
    """An item three sds further out than any other is the one, with the smallest p-value that so many
    simulations give, and its score."""
    own = normal(7, 2, 3)
    own[4] = torch.tensor([6.0, -5.0])
    found = farthest_item(own, normal(4000, 2, 4))
    assert found.item == 4
    assert found.p_value == pytest.approx(7 / 4001)
    torch.testing.assert_close(found.away, own[4], rtol=0, atol=0.1)


def test_a_composition_names_an_item_that_the_others_contradict():
    """One of five Gaussian items that is of other parameters is warned of; of five of the same parameters
    nothing is said."""
    x = gaussian_data(THETA, 5, seed=2)
    _, report = compose(GaussianItems(x), fresh=fresh_gaussians())
    assert not report.warnings
    assert report.contradiction > 0.05
    x[2] += torch.tensor([6.0, 0.0])
    _, report = compose(GaussianItems(x), fresh=fresh_gaussians())
    assert report.least_typical == 2
    assert report.contradiction < 0.02
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("Item 3 of 5 is contradicted by the others")


@pytest.mark.nightly
def test_one_of_very_many_does_not_matter():
    """Among 1 000 items such an item is found, but moves the posterior by less than half a sd, and is no
    reason to doubt it."""
    x = gaussian_data(THETA, 1000, seed=2)
    x[2] += torch.tensor([6.0, 0.0])
    _, report = compose(GaussianItems(x), fresh=fresh_gaussians())
    assert report.least_typical == 2
    assert report.contradiction < 0.1
    assert report.influence < 0.5
    assert not report.warnings
