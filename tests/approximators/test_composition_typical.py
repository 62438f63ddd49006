"""Items that do not go together are found, and no others."""

import math

import pytest
import torch
from exact_items import GaussianItems
from test_composition_calibrated import THETA, compose, fresh_gaussians, gaussian_data

from sbi_models.approximators.composition.typical import least_typical


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_p_values_are_those_of_the_farthest(n):
    """For items like the fresh, correlated and of any scale, p < q has the probability q, up to four standard errors of 1 000 sets."""
    mix = torch.tensor([[30.0, 0.0], [-20.0, 0.1]], dtype=torch.float64)
    fresh = normal(20_000, 2, 1) @ mix + 5
    found = torch.tensor([least_typical(normal(n, 2, 10 + k) @ mix + 5, fresh).p_value for k in range(1000)])
    for q in (0.02, 0.1, 0.3):
        exact = 1 - (1 - q / n) ** n
        assert float((found < q).double().mean()) == pytest.approx(exact, abs=4 * math.sqrt(q / 1000))


def test_the_least_typical_item_is_named():
    """An item three sds further out than any other is the one, with the smallest p-value that so many simulations give, and its score."""
    own = normal(7, 2, 3)
    own[4] = torch.tensor([6.0, -5.0])
    found = least_typical(own, normal(4000, 2, 4))
    assert found.item == 4
    assert found.p_value == pytest.approx(7 / 4001)
    torch.testing.assert_close(found.score, own[4], rtol=0, atol=0.1)


def test_a_composition_names_an_item_that_the_others_contradict():
    """One of five Gaussian items that is of other parameters is warned of; of five of the same parameters nothing is said."""
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


def test_one_of_very_many_does_not_matter():
    """Among 1 000 items such an item is found, but moves the posterior by less than half a sd, and is no reason to doubt it."""
    x = gaussian_data(THETA, 1000, seed=2)
    x[2] += torch.tensor([6.0, 0.0])
    _, report = compose(GaussianItems(x), fresh=fresh_gaussians())
    assert report.least_typical == 2
    assert report.contradiction < 0.1
    assert report.influence < 0.5
    assert not report.warnings
