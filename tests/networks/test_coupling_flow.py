"""Coupling flows: splines, inverse, determinant and density, against autograd, quadrature and exact
posteriors."""

import json
import math

import pytest
import torch

from sbi_models.errors import ConfigurationError
from sbi_models.networks import CouplingFlow, network_from_json
from sbi_models.networks.coupling.base import StudentT
from sbi_models.networks.coupling.spline import spline_forward, spline_inverse, spline_width
from sbi_models.networks.coupling.transforms import Affine, AffineSpline
from sbi_models.simulators.benchmarks import GaussianLinear


def rng(seed):
    return torch.Generator().manual_seed(seed)


def random_flow(theta_dim=2, condition_dim=3, *, size=0.15, seed=0, dtype=torch.float64, **arguments):
    """A flow whose last layers are not at zero, so that its density is far from normal."""
    network = CouplingFlow(**{"depth": 2, "widths": (16, 16), **arguments})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.build(theta_dim, condition_dim)
        for parameter in network.parameters():
            parameter.data += size * torch.randn(parameter.shape)
    return network.to(dtype)


def conditions(n, condition_dim=3, seed=1, dtype=torch.float64):
    return torch.randn(n, condition_dim, generator=rng(seed), dtype=dtype)


def random_spline(n, bins=8, *, size=1.0, seed=0, dtype=torch.float64):
    return size * torch.randn(n, spline_width(bins), generator=rng(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("bins", [2, 8, 16])
def test_the_inverse_of_a_spline_is_exact(dtype, tolerance, bins):
    """x to y and back is x, and y to x and back is y, inside the bound and outside; where slopes are below 1,
    to the digits that y has."""
    bound = 3.0
    raw = random_spline(5000, bins, dtype=dtype)
    values = (2.0 * torch.randn(5000, generator=rng(1), dtype=torch.float64)).to(dtype)
    y, log_slope = spline_forward(values, raw, bound)
    back, log_back = spline_inverse(y, raw, bound)
    assert ((back - values).abs() / (-log_slope).exp().clamp(min=1)).max() < tolerance
    assert (log_slope + log_back).abs().median() < tolerance
    x, log_slope = spline_inverse(values, raw, bound)
    again, _ = spline_forward(x, raw, bound)
    assert ((again - values).abs() / (-log_slope).exp().clamp(min=1)).max() < tolerance
    assert (y - values).abs().max() > 0.5


@pytest.mark.parametrize("size", [1.0, 8.0, 1e4])
def test_splines_increase_and_join_their_tails(size):
    """A spline increases strictly on a grid, stays in [-bound, bound] inside, and is the identity outside;
    also for wild raw numbers."""
    grid = torch.linspace(-4.0, 4.0, 20_001, dtype=torch.float64)
    for seed in range(5):
        raw = random_spline(1, size=size, seed=seed)
        for direction in (spline_forward, spline_inverse):
            y, log_slope = direction(grid, raw, 3.0)
            outside = grid.abs() >= 3.0
            assert (y.diff() > 0).all()
            assert (y[~outside].abs() <= 3.0).all()
            assert torch.equal(y[outside], grid[outside])
            assert torch.equal(log_slope[outside], torch.zeros_like(grid[outside]))
            near = torch.tensor([-3.0 + 1e-9, 3.0 - 1e-9], dtype=torch.float64)
            torch.testing.assert_close(
                direction(near, raw, 3.0)[1], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("transform", [Affine(), AffineSpline(8, 3.0)])
def test_log_slopes_are_those_of_autograd(transform):
    """The analytic log derivative of both directions is the log of autograd's, and every raw number has a
    finite gradient."""
    raw = torch.randn(500, 1, transform.width, generator=rng(2), dtype=torch.float64, requires_grad=True)
    x = (2.0 * torch.randn(500, 1, generator=rng(3), dtype=torch.float64)).requires_grad_()
    for direction in (transform.forward, transform.inverse):
        y, log_slope = direction(x, raw)
        (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
        torch.testing.assert_close(log_slope, slope.log(), rtol=1e-8, atol=1e-8)
        (gradient,) = torch.autograd.grad(log_slope.sum() + y.square().sum(), raw)
        assert gradient.isfinite().all()
        assert (gradient.abs().amax(dim=(0, 1)) > 0).all()


@pytest.mark.parametrize("transform", ["spline", "affine"])
@pytest.mark.parametrize("theta_dim", [1, 2, 5])
@pytest.mark.parametrize("condition_dim", [0, 3])
def test_the_flow_is_invertible_and_its_determinant_exact(transform, theta_dim, condition_dim):
    """from_base undoes to_base, and log |det| is that of autograd's Jacobian; no component stays as it
    was."""
    network, given = random_flow(theta_dim, condition_dim, transform=transform), conditions(6, condition_dim)
    theta = 1.5 * torch.randn(6, theta_dim, generator=rng(4), dtype=torch.float64)
    z, log_det = network.to_base(theta, given)
    torch.testing.assert_close(network.from_base(z, given), theta, rtol=1e-9, atol=1e-9)
    for i in range(6):
        jacobian = torch.autograd.functional.jacobian(
            lambda t, i=i: network.to_base(t[None], given[i : i + 1])[0][0], theta[i]
        )
        torch.testing.assert_close(
            log_det[i].detach(), torch.linalg.slogdet(jacobian)[1], rtol=1e-8, atol=1e-8
        )
    changed = (z[:, :, None] - theta[:, None, :]).abs().amax(dim=0)
    assert (changed > 1e-3).all()


@pytest.mark.parametrize(
    ("dtype", "size", "tolerance"), [(torch.float32, 0.05, 1e-4), (torch.float64, 0.15, 1e-8)]
)
@pytest.mark.parametrize("theta_dim", [1, 2, 3, 7])
def test_draws_are_the_inverse_of_the_base_noise(theta_dim, dtype, size, tolerance):
    """Draws, made with conditions computed once a data set, go back to the very noise they came from."""
    network, given = random_flow(theta_dim, size=size, dtype=dtype), conditions(5, dtype=dtype)
    with torch.no_grad():
        draws = network.sample(200, given, rng(5))
        z, _ = network.to_base(draws, given[:, None, :].expand(5, 200, 3))
    noise = torch.randn(5, 200, theta_dim, generator=rng(5), dtype=dtype)
    torch.testing.assert_close(z, noise, rtol=tolerance, atol=tolerance)
    assert (draws - noise).abs().max() > 0.1


@pytest.mark.parametrize("transform", ["spline", "affine"])
@pytest.mark.parametrize("theta_dim", [1, 2, 5])
def test_an_untrained_flow_is_the_standard_normal(transform, theta_dim):
    """Before training the density is that of N(0, I) and z is theta with its components in another order."""
    network = CouplingFlow(transform=transform)
    network.build(theta_dim, 3)
    network.double()
    theta, given = 2.0 * torch.randn(50, theta_dim, generator=rng(6), dtype=torch.float64), conditions(50)
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(theta).sum(dim=-1)
    torch.testing.assert_close(network.log_prob(theta, given).detach(), exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        network.to_base(theta, given)[0].sort(dim=-1)[0].detach(),
        theta.sort(dim=-1)[0],
        rtol=1e-10,
        atol=1e-10,
    )


def grid_density(network, given, size, reach):
    """Points (size^d, d) of a midpoint grid on [-reach, reach]^d and their probabilities."""
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 * reach - reach
    points = torch.cartesian_prod(*[axis] * network.theta_dim).reshape(-1, network.theta_dim)
    with torch.no_grad():
        log_p = network.log_prob(points, given.expand(len(points), given.shape[-1]))
    return points, log_p.exp() * (2 * reach / size) ** network.theta_dim


@pytest.mark.parametrize("transform", ["spline", "affine"])
@pytest.mark.parametrize(("theta_dim", "size"), [(1, 20_000), (2, 400)])
def test_the_density_integrates_to_one_and_draws_follow_it(transform, theta_dim, size):
    """The density sums to 1 on a grid within 1e-3, differs from normal, and has the moments of 40 000 draws
    within 5 standard errors."""
    network, given = random_flow(theta_dim, size=0.09, transform=transform), conditions(1)
    points, p = grid_density(network, given, size, 10.0)
    assert p.sum().item() == pytest.approx(1.0, abs=1e-3)
    with torch.no_grad():
        draws = network.sample(40_000, given, rng(7))[0]
    for function in (lambda t: t, torch.tanh, torch.square, lambda t: t * t.flip(-1), torch.cos):
        expected, values = (p[:, None] * function(points)).sum(dim=0), function(draws)
        assert ((values.mean(dim=0) - expected).abs() < 5 * values.std(dim=0) / 200 + 1e-3).all()
    mean = (p[:, None] * points).sum(dim=0)
    assert (mean.abs() + ((p[:, None] * points.square()).sum(dim=0) - mean.square() - 1).abs()).max() > 0.1


@pytest.mark.parametrize("theta_dim", [1, 3])
def test_the_student_t_base_is_that_of_torch(theta_dim):
    """Its density is the multivariate t, by its definition as a scale mixture integrated numerically; draws
    have its variance and tails."""
    df = 6
    z = 2.0 * torch.randn(20, theta_dim, generator=rng(8), dtype=torch.float64)
    w = torch.linspace(1e-4, 8.0, 80_001, dtype=torch.float64)
    weight = torch.distributions.Chi2(torch.tensor(df, dtype=torch.float64)).log_prob(w * df).exp() * df
    given_w = theta_dim / 2 * (w / (2 * math.pi)).log() - w * z.square().sum(dim=-1, keepdim=True) / 2
    exact = torch.trapezoid(given_w.exp() * weight, w).log()
    torch.testing.assert_close(StudentT(df).log_prob(z), exact, rtol=1e-5, atol=1e-5)
    draws = StudentT(df).sample(50_000, theta_dim, rng(9), torch.zeros(4, 2, dtype=torch.float64))
    assert draws.shape == (4, 50_000, theta_dim)
    assert draws.square().mean().item() == pytest.approx(df / (df - 2), rel=0.02)
    beyond = torch.tensor(1.943180)  # the 95 % quantile of t with 6 degrees of freedom
    assert (draws[..., 0] > beyond).double().mean().item() == pytest.approx(0.05, abs=0.0025)
    network = random_flow(theta_dim, base="student_t", degrees_of_freedom=df)
    theta, log_det = network.to_base(z, conditions(20))
    torch.testing.assert_close(network.log_prob(z, conditions(20)), StudentT(df).log_prob(theta) + log_det)


@pytest.mark.parametrize("transform", ["spline", "affine"])
@pytest.mark.parametrize("theta_dim", [1, 2, 10])
def test_far_outliers_stay_finite(transform, theta_dim):
    """Parameters, conditions and noise of 1000 give finite densities, gradients and draws, in float32 and
    with the default depth."""
    network = random_flow(theta_dim, size=0.1, dtype=torch.float32, depth=6, transform=transform)
    for far in (1e3, -1e3):
        theta, given = torch.full((4, theta_dim), far), conditions(4, dtype=torch.float32)
        given[2:] *= 1e3
        theta[1] = torch.randn(theta_dim, generator=rng(10))
        loss = network.loss(theta, given)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
        with torch.no_grad():
            assert network.from_base(theta, given).isfinite().all()


def test_permutations_belong_to_the_file():
    """Orders are drawn from the global stream, differ between blocks, are saved with the weights, and come
    back with them."""
    torch.manual_seed(1)
    network = CouplingFlow(depth=3, widths=(16,))
    network.build(6, 2)
    torch.manual_seed(2)
    twin = network_from_json(json.loads(json.dumps(network.to_json())))
    orders = [block.order.tolist() for block in network.blocks]
    assert len({tuple(order) for order in orders}) == 3
    assert [block.order.tolist() for block in twin.blocks] != orders
    twin.load_state_dict(network.state_dict())
    assert [block.order.tolist() for block in twin.blocks] == orders


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transform": "splines"}, r"Unknown transform 'splines'.*Did you mean 'spline'"),
        ({"base": "student"}, r"Unknown base 'student'.*Did you mean 'student_t'"),
        ({"depth": 0}, "at least 1 for depth, got 0"),
        ({"bins": 1}, "at least 2 for bins, got 1"),
        ({"bins": 2.5}, "whole number of at least 2 for bins"),
        ({"degrees_of_freedom": 0}, "at least 1 for degrees_of_freedom"),
        ({"bound": 0.0}, "positive, finite bound"),
        ({"bound": float("inf")}, "positive, finite bound"),
        ({"widths": (64, 32)}, "equal widths"),
        ({"subnet": "residul"}, "Did you mean 'residual'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    """Arguments that cannot be are refused by the constructor, with what was expected and got."""
    with pytest.raises(ConfigurationError, match=message):
        CouplingFlow(**arguments)


def train(network, theta, given, *, steps, batch, rate, seed):
    """Adam with a cosine schedule on pairs in memory."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(theta), (batch,), generator=seed)
        optimizer.zero_grad()
        network.loss(theta[rows], given[rows]).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.5)
        optimizer.step()
        schedule.step()


@pytest.mark.nightly
def test_a_bimodal_posterior_of_one_parameter():
    """theta ~ N(0, 1), x ~ N(theta^2, 0.3^2): the log score is within 0.05 nats of the exact posterior's,
    though it has two modes."""
    torch.manual_seed(0)
    theta = torch.randn(22_000, 1, generator=rng(11))
    x = theta.square() + 0.3 * torch.randn(22_000, 1, generator=rng(12))
    network = CouplingFlow(depth=2, widths=(32, 32))
    network.build(1, 1)
    train(network, theta[2000:], x[2000:], steps=400, batch=256, rate=3e-3, seed=rng(13))
    with torch.no_grad():
        learned = network.log_prob(theta[:2000], x[:2000])
    grid = torch.linspace(-6.0, 6.0, 4001)
    joint = torch.distributions.Normal(0.0, 1.0).log_prob(grid) + torch.distributions.Normal(
        grid**2, 0.3
    ).log_prob(x[:2000])
    evidence = joint.logsumexp(dim=-1) + math.log(12 / 4000)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(theta[:2000])
    exact = (prior + torch.distributions.Normal(theta[:2000] ** 2, 0.3).log_prob(x[:2000]))[:, 0] - evidence
    assert (exact - learned).mean().item() < 0.05
    assert (exact - prior[:, 0]).mean().item() > 0.5


@pytest.mark.nightly
def test_a_normal_posterior_in_ten_dimensions():
    """On the Gaussian linear model posterior means are within 0.1, sds within 10 % of the exact ones, and the
    score within 0.1 nats."""
    torch.manual_seed(0)
    model = GaussianLinear()
    unit = model.prior_variance**0.5
    theta, x = (
        torch.as_tensor(values / unit, dtype=torch.float32)
        for values in model.simulator.sample(61_000, seed=1).values()
    )
    network = CouplingFlow(depth=2, widths=(64, 64))
    network.build(10, 10)
    train(network, theta[1000:], x[1000:], steps=400, batch=128, rate=2e-3, seed=rng(14))
    exact = torch.distributions.Normal(x[:1000] / 2, 0.5**0.5)
    with torch.no_grad():
        learned = network.log_prob(theta[:1000], x[:1000])
        draws = network.sample(500, x[:50], rng(15))
    assert (exact.log_prob(theta[:1000]).sum(dim=-1) - learned).mean().item() < 0.1
    assert ((draws.mean(dim=1) - x[:50] / 2).abs() / 0.5**0.5).mean().item() < 0.1
    ratio = draws.std(dim=1) / 0.5**0.5
    assert (ratio.mean(dim=0) - 1).abs().max().item() < 0.05
    assert (ratio - 1).square().mean().sqrt().item() < 0.1
