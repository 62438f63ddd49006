"""Ratios that a classifier learns, against the exact ratio of a normal model."""

import numpy as np
import pytest
import torch

from sbi_models.errors import ConfigurationError
from sbi_models.networks import ContrastiveRatio, ConvolutionalNetwork


def exact_loss(x, theta, contrasts):
    """Loss of the exact ratio N(x; theta, 0.25) / N(x; 0, 1.25)."""
    network = ContrastiveRatio(contrasts=contrasts)

    def head(features, given):
        return -((features - given) ** 2) / 0.5 + features**2 / 2.5 + 0.5 * np.log(1.25 / 0.25)

    network.head = head
    return network.loss_given(x, theta).mean()


def pairs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(n, 1, generator=generator)
    return theta + 0.5 * torch.randn(n, 1, generator=generator), theta


@pytest.mark.parametrize("contrasts", [1, 4, 16])
def test_the_exact_ratio_minimizes_the_loss(contrasts):
    """Ratios that are larger, smaller, sharper or flatter than the exact one have a larger loss."""
    x, theta = pairs(4000, seed=1)
    best = exact_loss(x, theta, contrasts)
    network = ContrastiveRatio(contrasts=contrasts)
    for shift, scale in [(0.3, 1.0), (-0.3, 1.0), (0.0, 1.3), (0.0, 0.7)]:

        def head(features, given, shift=shift, scale=scale):
            exact = -((features - given) ** 2) / 0.5 + features**2 / 2.5 + 0.5 * np.log(5.0)
            return scale * exact + shift

        network.head = head
        assert network.loss_given(x, theta).mean() > best


def test_training_finds_the_ratio():
    """After 500 steps the log ratio is within 0.1 nats (rms) of the exact one, with its constant."""
    torch.manual_seed(1)
    network = ContrastiveRatio(widths=(32, 32, 32), contrasts=8)
    network.build(1, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for step in range(500):
        loss = network.loss_given(*pairs(256, seed=step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x, theta = pairs(2000, seed=-1)
    exact = (-((x - theta) ** 2) / 0.5 + x**2 / 2.5 + 0.5 * np.log(5.0))[:, 0]
    with torch.no_grad():
        error = network.log_ratio(x, theta) - exact
    assert error.square().mean().sqrt() < 0.1


def test_balance_is_a_penalty_of_unbalanced_classifiers():
    """The exact ratio is balanced: a penalty adds next to nothing, and much to one that is twice as sharp."""
    x, theta = pairs(4000, seed=2)

    def loss(balance, scale):
        network = ContrastiveRatio(contrasts=4, balance=balance)
        network.head = lambda features, given: (
            scale * (-((features - given) ** 2) / 0.5 + features**2 / 2.5 + 0.5 * np.log(5.0))
        )
        return network.loss_given(x, theta).mean()

    assert loss(100.0, 1.0) - loss(0.0, 1.0) < 0.02
    assert loss(100.0, 2.0) - loss(0.0, 2.0) > 0.05


def test_features_are_computed_once_for_all_parameters():
    """`log_ratio_of_each` of the features equals `log_ratio` pair by pair; images go through the network."""
    network = ContrastiveRatio(
        widths=(8, 8), summary_network=ConvolutionalNetwork(summary_dim=4, widths=(4,)), shape=(6, 6, 1)
    )
    network.build(36, 2)
    torch.nn.init.normal_(network.head.out.weight)
    x, conditions = torch.randn(5, 36), torch.randn(3, 2)
    features = network.embed(x)
    assert features.shape == (5, 4)
    together = network.log_ratio_of_each(features.expand(3, 5, 4), conditions)
    for k in range(3):
        alone = network.log_ratio(x, conditions[k].expand(5, 2))
        torch.testing.assert_close(together[k], alone)


def test_a_batch_of_one_pair_has_no_loss():
    network = ContrastiveRatio(widths=(8,))
    network.build(2, 1)
    assert network.loss(torch.ones(1, 2), torch.ones(1, 1)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"balance": -1.0}, "balance of at least 0"),
        ({"shape": (4, 4)}, "both a summary_network and the shape"),
        ({"contrasts": 0}, "contrasts"),
    ],
)
def test_arguments_are_checked(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        ContrastiveRatio(**arguments)


def test_there_are_no_draws():
    network = ContrastiveRatio()
    network.build(2, 1)
    with pytest.raises(ConfigurationError, match="has no draws"):
        network.sample(3, torch.zeros(1, 1))
    with pytest.raises(ConfigurationError, match="no density"):
        network.log_prob(torch.zeros(1, 2), torch.zeros(1, 1))
