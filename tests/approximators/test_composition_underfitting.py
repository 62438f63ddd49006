"""Scores that do not use what they are given are found out."""

import pytest
import torch

from sbi_models.approximators.composition.checks import predictable_share, underfitting_note


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_what_is_left_unused(weight):
    """theta ~ N(0, 1) given x = theta + z has N(x / 2, 1 / 2); a mean that is weight * x / 2 leaves (1 - w)^2
    / (1 + (1 - w)^2) of scores to be predicted."""
    theta, z = normal(40_000, 1, 1), normal(40_000, 1, 2)
    x = theta + z
    scores = -(theta - weight * x / 2) / 0.5**0.5
    exact = (1 - weight) ** 2 / (1 + (1 - weight) ** 2)
    assert predictable_share(torch.cat([x, normal(40_000, 3, 3)], dim=1), scores) == pytest.approx(
        exact, abs=0.015
    )


def test_too_few_simulations_say_nothing():
    """With fewer than ten simulations for each term nothing is said; a feature that never changes is no
    feature."""
    x = normal(60, 3, 1)
    assert predictable_share(x, x[:, :1]) == 0
    x = torch.cat([normal(400, 1, 2), torch.ones(400, 1, dtype=torch.float64)], dim=1)
    assert predictable_share(x, x[:, :1]) == pytest.approx(1, abs=0.01)


def test_the_note_is_for_much():
    """Up to five in a hundred nothing is said; beyond, how much."""
    assert underfitting_note(0.04) == ()
    assert "43%" in underfitting_note(0.43)[0]
