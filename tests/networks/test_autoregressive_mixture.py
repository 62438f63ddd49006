"""The autoregressive mixture: density by quadrature, draws by its density, the start by an exact
posterior."""

import math

import pytest
import torch

from sbi_models.errors import ConfigurationError
from sbi_models.networks import AutoregressiveMixture


def rng(seed):
    return torch.Generator().manual_seed(seed)


def network(theta_dim, condition_dim=2, *, seed=0, size=0.15, dtype=torch.float64, **arguments):
    """A small network with random weights everywhere, far from normal."""
    made = AutoregressiveMixture(**{"components": 4, "trunk_width": 16, "head_width": 8, **arguments})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made.build(theta_dim, condition_dim)
        for parameter in made.parameters():
            parameter.data += size * torch.randn(parameter.shape)
    return made.to(dtype)


def grid(low=-8.0, high=8.0, number=300):
    """Midpoints of a square, (number^2, 2), and the area of each cell."""
    step = (high - low) / number
    line = low + step * (torch.arange(number, dtype=torch.float64) + 0.5)
    return torch.cartesian_prod(line, line), step**2


@pytest.mark.parametrize("order", ["random", "given"])
@pytest.mark.parametrize(
    "arguments", [{}, {"trunk_width": 0}, {"components": 1}, {"head_blocks": 0, "trunk_blocks": 0}]
)
def test_the_density_integrates_to_one(order, arguments):
    """Quadrature over a square that holds all of it."""
    made = network(2, order=order, **arguments)
    points, area = grid()
    condition = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    with torch.no_grad():
        total = made.log_prob(points, condition.expand(len(points), -1)).exp().sum() * area
    assert float(total) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("components", [1, 2, 12])
def test_it_starts_as_a_law_of_mean_zero_and_variance_one(components):
    """By quadrature, whatever the conditions; and the law is nearly normal."""
    made = AutoregressiveMixture(components, trunk_width=4, head_width=4)
    made.build(1, 2)
    made.double()
    points = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        density = made.log_prob(points, torch.full((4001, 2), 0.7, dtype=torch.float64)).exp() * 16 / 4000
    moments = [float(density @ points[:, 0] ** k) for k in (0, 1, 2)]
    assert moments == pytest.approx([1.0, 0.0, 1.0], abs=2e-4)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(points[:, 0]).exp() * 16 / 4000
    assert float((density - normal).abs().sum()) < 0.1


def test_draws_are_of_the_density():
    """Means, second moments and shares of quadrants of 200 000 draws against those by quadrature, far from
    where residuals are zero."""
    made = network(2, seed=3)
    made.shift.data += 1.5
    made.log_scale.data -= 0.5
    points, area = grid(number=700)
    condition = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    draws = made.sample(200_000, condition, rng(1)).detach()[0]
    with torch.no_grad():
        weights = made.log_prob(points, condition.expand(len(points), -1)).exp() * area
    centre = weights @ points
    for statistic in (
        lambda x: x,
        lambda x: (x - centre).square(),
        lambda x: (x > centre).double(),
        lambda x: (x - centre).prod(1, True),
    ):
        exact, found = weights @ statistic(points), statistic(draws)
        assert (found.mean(dim=0) - exact).abs().max() < 5 * found.std(dim=0).max() / math.sqrt(
            len(draws)
        ) + 2e-3


def linear_gaussian(n, seed=0):
    """theta of three parameters with a mean linear in two conditions and a full covariance, and its exact log
    density."""
    generator = rng(seed)
    a, root = torch.randn(2, 3, generator=generator), torch.randn(3, 3, generator=generator).tril() * 0.3
    root.diagonal().abs_()
    conditions = torch.randn(n, 2, generator=generator)
    theta = conditions @ a + torch.randn(n, 3, generator=generator) @ root.T + 0.5
    exact = torch.distributions.MultivariateNormal(conditions @ a + 0.5, scale_tril=root).log_prob(theta)
    return theta, conditions, exact


@pytest.mark.parametrize(("components", "tolerance"), [(1, 0.004), (12, 0.004)])
def test_it_starts_from_the_exact_posterior_of_a_linear_gaussian_model(components, tolerance):
    """Before any training, shown 5 000 pairs: the held-out log density is the exact one but for the errors of
    least squares."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoregressiveMixture(components)
        made.build(3, 2)
    theta, conditions, _ = linear_gaussian(5_000)
    made.start_from(theta, conditions)
    generator_theta, generator_conditions, exact = linear_gaussian(25_000)
    with torch.no_grad():
        gap = (exact - made.log_prob(generator_theta, generator_conditions)).mean()
    assert abs(float(gap)) < tolerance


@pytest.mark.nightly
def test_what_components_share_is_seen_beside_a_wide_prior():
    """Two scales of noise that both components share, below 0.03 of the spread of the conditions: the second
    knows from the first."""
    generator = rng(0)
    conditions = torch.randn(4_000, 2, generator=generator)
    scale = torch.where(torch.rand(4_000, 1, generator=generator) < 0.5, 1.0, 0.05)
    theta = conditions + 0.03 * scale * torch.randn(4_000, 2, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoregressiveMixture(2, trunk_width=0, head_width=32, order="given")
        made.build(2, 2)
    made.start_from(theta, conditions)
    optimizer = torch.optim.Adam(made.parameters(), lr=5e-3)
    for step in range(1_000):
        rows = torch.randint(4_000, (256,), generator=rng(step))
        optimizer.zero_grad()
        made.loss(theta[rows], conditions[rows]).mean().backward()
        optimizer.step()
    by_scale = [
        torch.distributions.Normal(0.0, 0.03 * each).log_prob(theta - conditions).sum(dim=1)
        for each in (1.0, 0.05)
    ]
    exact = torch.stack(by_scale).logsumexp(dim=0) - math.log(2)
    with torch.no_grad():
        assert float((exact - made.log_prob(theta, conditions)).mean()) < 0.1


def test_dropout_is_of_training_alone():
    """Losses of the same noise agree, of other noise differ, and evaluation has none."""
    made = network(3, dropout=0.5, dtype=torch.float32)
    theta, conditions = torch.randn(6, 3, generator=rng(1)), torch.randn(6, 2, generator=rng(2))
    made.train()
    assert torch.equal(made.loss(theta, conditions, rng(0)), made.loss(theta, conditions, rng(0)))
    assert not torch.allclose(made.loss(theta, conditions, rng(0)), made.loss(theta, conditions, rng(1)))
    made.eval()
    assert torch.equal(made.loss(theta, conditions, rng(0)), made.loss(theta, conditions, rng(1)))
    assert torch.allclose(made.loss(theta, conditions), -made.log_prob(theta, conditions))


def test_orders_differ_between_instances():
    """So that members of an ensemble do not err alike; "given" is the order of the parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        orders = [network_of(order) for order in ("random",) * 4]
    assert len({tuple(order.tolist()) for order in orders}) > 1
    assert network_of("given").tolist() == list(range(6))


def network_of(order):
    made = AutoregressiveMixture(2, order=order)
    made.build(6, 1)
    return made.order


@pytest.mark.parametrize(
    "arguments",
    [
        {"components": 0},
        {"trunk_width": -1},
        {"head_width": 0},
        {"dropout": 1.0},
        {"head_blocks": 1.5},
        {"order": "any"},
    ],
)
def test_bad_arguments(arguments):
    """Errors say what was expected."""
    with pytest.raises(ConfigurationError, match="Expected"):
        AutoregressiveMixture(**arguments)


@pytest.mark.parametrize("discrete", [(), ((0, "categorical", 3),), ((0, "count", 50),)])
@pytest.mark.parametrize("theta_dim", [1, 2])
@pytest.mark.parametrize("trunk_width", [0, 16])
def test_values_that_share_conditions_have_the_densities_that_they_have_alone(
    discrete, theta_dim, trunk_width
):
    """Densities of 5 values for each of 4 conditions, and their gradients, are those of 20 pairs."""
    made = AutoregressiveMixture(components=4, trunk_width=trunk_width, head_width=8, order="given")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made.build(theta_dim, 2, discrete)
        for parameter in made.parameters():
            parameter.data += 0.15 * torch.randn(parameter.shape)
    made = made.to(torch.float64)
    theta = torch.randint(0, 3, (4, 5, theta_dim), generator=rng(2)).to(torch.float64)
    conditions = torch.randn(4, 2, generator=rng(3), dtype=torch.float64).requires_grad_()
    together = made.log_prob_of_each(theta, conditions)
    alone = made.log_prob(theta.flatten(0, 1), conditions.repeat_interleave(5, dim=0)).reshape(4, 5)
    assert torch.allclose(together, alone, atol=1e-12)
    slopes = [torch.autograd.grad(part.sum(), conditions)[0] for part in (together, alone)]
    assert torch.allclose(*slopes, atol=1e-10)
