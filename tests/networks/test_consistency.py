"""Consistency models: the boundary, the target, and draws of normal parameters against formulas."""

import copy
import math

import pytest
import torch

from sbi_models.errors import ConfigurationError
from sbi_models.networks import ConsistencyModel


def rng(seed):
    return torch.Generator().manual_seed(seed)


def made(theta_dim=2, **arguments):
    """A small network in double precision with random weights in its last layer."""
    network = ConsistencyModel(widths=(16, 16), **arguments)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network.build(theta_dim, 1)
        network.field.out.weight.data = 0.2 * torch.randn(network.field.out.weight.shape)
        network.field.out.bias.data = 0.2 * torch.randn(network.field.out.bias.shape)
    return network.double()


class Exact(torch.nn.Module):
    """In place of the network: the flow of N(mean, sd^2) and the slope to its end, by formula; each may be
    off by a number."""

    def __init__(self, mean, sd, flow_error=0.0, map_error=0.0):
        super().__init__()
        self.mean, self.sd, self.flow_error, self.map_error = mean, sd, flow_error, map_error

    def forward(self, u, conditions, t):
        c, s = (t * math.pi / 2).cos(), (t * math.pi / 2).sin()
        spread = (c**2 * self.sd**2 + s**2).sqrt()
        away = (u - c * self.mean) / spread
        flow = -s * self.mean + s * c * (1 - self.sd**2) * away / spread
        end = self.mean + self.sd * away
        return (
            torch.cat([flow + self.flow_error, (u - end) / s + self.map_error], dim=-1) + 0 * conditions.sum()
        )


def exact(mean, sd, theta_dim=1, flow_error=0.0, map_error=0.0, **arguments):
    network = made(theta_dim, **arguments)
    network.field = Exact(mean, sd, flow_error, map_error)
    return network


def test_the_data_end_is_the_identity():
    """f(u, 0) = u whatever the weights; elsewhere it is not."""
    network, given = made(), torch.zeros(5, 1, dtype=torch.float64)
    u, angle = (
        torch.randn(5, 2, generator=rng(1), dtype=torch.float64),
        torch.zeros(5, 1, dtype=torch.float64),
    )
    assert torch.equal(network.denoise(u, angle, given), u)
    assert (network.denoise(u, angle + 1, given) - u).abs().min() > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_network_of_zero_is_the_standard_normal(steps):
    """With a last layer of zero (as at the start) one call returns the noise itself; draws with more are
    standard normal too."""
    network = made(3)
    torch.nn.init.zeros_(network.field.out.weight)
    torch.nn.init.zeros_(network.field.out.bias)
    draws = network.sample(20_000, torch.zeros(1, 1, dtype=torch.float64), rng(2), steps=steps)
    if steps == 1:
        torch.testing.assert_close(draws, torch.randn(1, 20_000, 3, generator=rng(2), dtype=torch.float64))
    assert draws.mean(dim=1).abs().max() < 5 / math.sqrt(20_000)
    assert (draws.std(dim=1) - 1).abs().max() < 5 / math.sqrt(40_000)


@pytest.mark.parametrize("sd", [1.0, 0.3, 0.005])
@pytest.mark.parametrize("steps", [1, 4])
def test_exact_maps_give_exact_draws(sd, steps):
    """With the exact map of N(0.7, sd^2) the draws have its mean and sd, within 5 standard errors, in any
    number of calls."""
    draws = exact(0.7, sd, steps=steps).sample(20_000, torch.zeros(1, 1, dtype=torch.float64), rng(3))
    assert draws.mean().item() == pytest.approx(0.7, abs=5 * sd / math.sqrt(20_000))
    assert draws.std().item() == pytest.approx(sd, rel=5 / math.sqrt(40_000))


@pytest.mark.parametrize("sd", [0.7, 0.05])
def test_the_loss_is_lowest_at_the_exact_maps(sd):
    """At the exact flow and map only the noise in v is left, by its formula; a wrong flow or map costs
    more."""
    theta = 0.7 + sd * torch.randn(12_000, 1, generator=rng(4), dtype=torch.float64)

    def losses(**errors):
        return exact(0.7, sd, **errors).loss(theta, torch.zeros(12_000, 1, dtype=torch.float64), rng(5))

    angle = torch.linspace(0, math.pi / 2, 20_001, dtype=torch.float64)
    left = (sd**2 / (angle.cos() ** 2 * sd**2 + angle.sin() ** 2)).mean()
    best = losses()
    assert abs(best.mean() - left) < 4 * best.std() / math.sqrt(12_000)
    # The target of the map moves with the map at the end of the jump, by sin(end) / sin(angle) of the error:
    # less than the error itself.
    for error in (0.1, -0.1):
        assert 0.0005 < (losses(map_error=error) - best).mean() < 0.01
        assert (losses(flow_error=error) - best).mean() > 0.005


def test_the_target_is_where_the_flow_leads():
    """With the exact flow of N(0.7, 0.3^2) a jump misses it by its third power: the exact map costs under
    2e-4, a quarter jump far less."""
    theta = 0.7 + 0.3 * torch.randn(5000, 1, generator=rng(6), dtype=torch.float64)
    given = torch.zeros(5000, 1, dtype=torch.float64)

    def loss(jump):
        return exact(0.7, 0.3, longest_jump=jump).loss(theta, given, rng(7)).mean().item()

    costs = [loss(jump) - loss(1e-9) for jump in (0.5, 0.25)]
    assert 0 < costs[0] < 2e-4
    assert costs[0] / costs[1] > 2**4


def test_nothing_is_hidden():
    """A loss changes no state: the same call twice, in training mode too, gives the same numbers and leaves
    no trace in state or copies."""
    network = made().train()
    theta, given = (
        torch.randn(6, 2, generator=rng(8), dtype=torch.float64),
        torch.zeros(6, 1, dtype=torch.float64),
    )
    before = copy.deepcopy(network.state_dict())
    first = network.loss(theta, given, rng(9))
    assert torch.equal(first, network.loss(theta, given, rng(9)))
    assert torch.equal(first, network.eval().loss(theta, given, rng(9)))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"noise_per_pair": 0}, "at least 1"),
        ({"longest_jump": 0.0}, "above 0 and at most 1, got 0.0"),
        ({"total_steps": 10}, "no argument 'total_steps'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    """By the constructor."""
    with pytest.raises(ConfigurationError, match=message):
        ConsistencyModel(**arguments)
