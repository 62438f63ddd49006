"""Flow matching: its solver, its density and its draws, against formulas and autograd."""

import numpy as np
import pytest
import torch

from sbi_models.networks import FlowMatching
from sbi_models.networks.solvers import graded_times, runge_kutta_4


def rng(seed):
    return torch.Generator().manual_seed(seed)


def random_flow(theta_dim=2, *, steps=40, size=0.6, seed=0):
    """A flow with random weights in every layer, in double precision: far from normal, but smooth."""
    network = FlowMatching(widths=(16, 16), steps=steps)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.build(theta_dim, 3)
        network.field.out.weight.data = size * torch.randn(network.field.out.weight.shape) / 4
        network.field.out.bias.data = size * torch.randn(network.field.out.bias.shape)
    return network.double()


def conditions(n, seed=1):
    return torch.randn(n, 3, generator=rng(seed), dtype=torch.float64)


def test_the_solver_has_order_four():
    """Halving the step divides the error on theta' = cos(t) theta, solved by exp(sin t), by 16 within 5 %."""

    def error(steps):
        times = torch.linspace(0.0, 2.0, steps + 1, dtype=torch.float64)
        (end,) = runge_kutta_4(
            lambda t, state: (t.cos() * state[0],), (torch.ones(1, dtype=torch.float64),), times
        )
        return abs(end.item() - np.exp(np.sin(2.0)))

    orders = [np.log2(error(steps) / error(2 * steps)) for steps in (40, 80, 160)]
    np.testing.assert_allclose(orders, 4.0, atol=0.07)


def test_the_solver_carries_several_quantities():
    """A rotation and its clock, as one state on an uneven grid run backwards, end where the formula says."""
    times = graded_times(60, 1.5, device=torch.device("cpu"), dtype=torch.float64).flip(0)
    state = (torch.tensor([1.0, 0.0], dtype=torch.float64), torch.zeros((), dtype=torch.float64))
    turned, clock = runge_kutta_4(lambda t, s: (torch.stack([-s[0][1], s[0][0]]), 2 * t), state, times)
    np.testing.assert_allclose(turned, [np.cos(-1.0), np.sin(-1.0)], atol=1e-8)
    assert clock.item() == pytest.approx(-1.0, abs=1e-12)


@pytest.mark.parametrize("grading", [1.0, 1.5, 3.0])
def test_times_go_from_noise_to_data(grading):
    """The grid has steps + 1 increasing points from 0 to 1; with grading above 1 steps shrink towards the
    data."""
    times = graded_times(8, grading, device=torch.device("cpu"), dtype=torch.float64)
    gaps = times.diff()
    assert len(times) == 9
    assert (times[0], times[-1]) == (0.0, 1.0)
    assert (gaps > 0).all()
    assert torch.allclose(gaps, gaps[0].expand(8)) if grading == 1.0 else (gaps.diff() < 0).all()


def test_a_network_of_zero_is_the_standard_normal():
    """With a last layer of zero (as at the start) draws are the noise itself and the density is N(0, I), up
    to the error of the solver."""
    network = FlowMatching(widths=(16, 16), steps=64)
    network.build(3, 3)
    network.double()
    given = conditions(4)
    draws = network.sample(50, given, rng(2))
    noise = torch.randn(4, 50, 3, generator=rng(2), dtype=torch.float64)
    torch.testing.assert_close(draws, noise, rtol=1e-6, atol=1e-6)
    theta = 2 * torch.randn(4, 3, generator=rng(3), dtype=torch.float64)
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(theta).sum(dim=-1)
    torch.testing.assert_close(network.log_prob(theta, given), exact, rtol=1e-6, atol=1e-6)


def test_the_velocity_of_normal_parameters_is_the_formula():
    """For a network of zero, v(theta, t) = E[theta_1 - z | theta_t = theta] of standard normal theta_1 and z,
    by regression on draws."""
    network = FlowMatching(widths=(16,))
    network.build(1, 3)
    network.double()
    z, clean = torch.randn(2, 400_000, generator=rng(4), dtype=torch.float64)
    for t in (0.0, 0.3, 0.5, 0.8, 1.0):
        noisy = (1 - t) * z + t * clean
        slope = (noisy * (clean - z)).mean() / noisy.square().mean()
        one = torch.ones(1, 1, dtype=torch.float64)
        velocity = network.velocity(one, t * one, conditions(1))
        assert velocity.item() == pytest.approx(slope.item(), abs=0.01)


@pytest.mark.nightly
def test_the_density_is_a_change_of_variables():
    """log p(f(z)) = log N(z) - log|det df/dz|, with the Jacobian of the network's own flow map f from noise
    to draws by autograd."""
    network, given = random_flow(), conditions(6)
    noise = torch.randn(6, 1, 2, generator=rng(5), dtype=torch.float64)
    times = graded_times(network.steps, network.grading, device=noise.device, dtype=noise.dtype)

    def flow(z, c):
        (end,) = runge_kutta_4(
            lambda t, state: (network.velocity(state[0], t.reshape(1, 1), c),), (z,), times
        )
        return end

    base = torch.distributions.Normal(0.0, 1.0).log_prob(noise[:, 0]).sum(dim=-1)
    draws, expected = network.sample(1, given, rng(5))[:, 0], []
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(
            lambda z, i=i: flow(z[None], given[i : i + 1])[0], noise[i, 0]
        )
        expected.append(base[i] - torch.linalg.slogdet(jacobian)[1])
        torch.testing.assert_close(flow(noise[i], given[i : i + 1])[0], draws[i])
    log_prob = network.log_prob(draws, given)
    torch.testing.assert_close(log_prob, torch.stack(expected).detach(), rtol=1e-5, atol=1e-5)
    assert (log_prob - torch.distributions.Normal(0.0, 1.0).log_prob(draws).sum(dim=-1)).abs().min() > 0.01


@pytest.fixture(scope="module")
def grid():
    """The density of a random flow on a square that holds all of it: points (k, k, 2), probabilities (k,
    k)."""
    axis = torch.linspace(-9.0, 9.0, 91, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1)
    flat = points.reshape(-1, 2)
    density = random_flow(steps=20).log_prob(flat, conditions(1).expand(len(flat), 3)).exp()
    return axis, density.reshape(91, 91) * 0.2**2


def test_the_density_integrates_to_one(grid):
    """The sum of the density over a fine grid is 1 within 1e-4, though it is far from normal."""
    axis, p = grid
    assert p.sum().item() == pytest.approx(1.0, abs=1e-4)
    mean, second = (p.sum(dim=1) * axis).sum(), (p.sum(dim=1) * axis**2).sum()
    assert max(abs(mean), abs(second - mean**2 - 1)) > 0.05


def test_draws_follow_the_density(grid):
    """Moments of 40 000 draws are those of the density on the grid within 5 standard errors."""
    axis, p = grid
    with torch.no_grad():
        draws = random_flow(steps=20).sample(40_000, conditions(1), rng(6))[0]
    functions = [
        lambda a, b: a,
        lambda a, b: b,
        lambda a, b: a * b,
        lambda a, b: a**2,
        lambda a, b: b**2,
        lambda a, b: torch.tanh(a),
    ]
    for function in functions:
        values = function(draws[:, 0], draws[:, 1])
        expected = (p * function(axis[:, None], axis[None, :])).sum()
        assert abs(values.mean() - expected) < 5 * values.std() / 200


def test_the_loss_of_an_untrained_network_on_normal_parameters_is_one():
    """The target has unit variance at every time: for standard normal theta the loss of the zero network is
    1."""
    network = FlowMatching(widths=(16,))
    network.build(4, 3)
    theta = torch.randn(20_000, 4, generator=rng(7))
    assert network.loss(theta, torch.zeros(20_000, 3), rng(8)).mean().item() == pytest.approx(1.0, abs=0.01)


def test_the_loss_is_lowest_at_the_true_velocity():
    """For theta ~ N(m, s^2) the exact residual target, put in place of the network, has the loss of the
    formula; others have more."""
    mean, sd = 0.7, 0.4
    network = FlowMatching(widths=(16,))
    network.build(1, 1)

    def exact(scaled, conditions, t):
        variance = t**2 + (1 - t) ** 2
        noisy = scaled * variance.sqrt()
        total = t**2 * sd**2 + (1 - t) ** 2
        velocity = mean + (t * sd**2 - (1 - t)) / total * (noisy - t * mean)
        return (velocity - (2 * t - 1) / variance * noisy) * variance.sqrt()

    theta = mean + sd * torch.randn(40_000, 1, generator=rng(9))

    def loss(field):
        network.field = _Field(field)
        return network.loss(theta, torch.zeros(40_000, 1), rng(10)).mean().item()

    t = np.linspace(0, 1, 20_001)
    left = sd**2 / (t**2 * sd**2 + (1 - t) ** 2) * (t**2 + (1 - t) ** 2)
    best = loss(exact)
    assert best == pytest.approx(np.trapezoid(left, t), rel=0.02)
    for change in (0.1, -0.1):
        assert loss(lambda *args, change=change: exact(*args) + change) == pytest.approx(
            best + change**2, abs=0.005
        )
    network.steps = 64
    network.field = _Field(exact)
    draws = network.sample(20_000, torch.zeros(1, 1), rng(11))
    assert draws.mean().item() == pytest.approx(mean, abs=0.015)
    assert draws.std().item() == pytest.approx(sd, rel=0.03)
    points = torch.tensor([[0.2], [0.7], [1.5]])
    exact_density = torch.distributions.Normal(mean, sd).log_prob(points)[:, 0]
    torch.testing.assert_close(
        network.log_prob(points, torch.zeros(3, 1)), exact_density, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(("sd", "error"), [(0.5, 0.004), (0.03, 0.004), (0.005, 0.004), (0.001, 0.02)])
def test_the_defaults_are_as_exact_as_the_docstring_says(sd, error):
    """With the exact field of N(1.5, sd^2) in place of the network, draws of the default solver are the
    straight image of their noise with that mean and sd, and log_prob is of that normal, to 0.4 % of an sd of
    0.005 or more, and to 2 % of one of 0.001."""
    network, mean = FlowMatching(widths=(8,)), 1.5
    network.build(1, 1)

    def exact(scaled, conditions, t):
        variance, total = t**2 + (1 - t) ** 2, t**2 * sd**2 + (1 - t) ** 2
        noisy = scaled * variance.sqrt()
        velocity = mean + (t * sd**2 - (1 - t)) / total * (noisy - t * mean)
        return (velocity - (2 * t - 1) / variance * noisy) * variance.sqrt()

    network.field = _Field(exact)
    given = torch.zeros(1, 1, dtype=torch.float64)
    draws = network.sample(2000, given, rng(12))[0, :, 0]
    noise = torch.randn(1, 2000, 1, generator=rng(12), dtype=torch.float64)[0, :, 0]
    np.testing.assert_allclose((draws - mean) / sd, noise, rtol=error, atol=error)
    points = mean + sd * torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    normal = torch.distributions.Normal(mean, sd)
    density = network.log_prob(points, given.expand(3, 1))
    np.testing.assert_allclose(density, normal.log_prob(points)[:, 0], atol=5 * error)


class _Field(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function
