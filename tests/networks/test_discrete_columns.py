"""Discrete columns of the autoregressive mixture: probabilities by enumeration, draws by their
probabilities."""

import json
import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import bernoulli, nbinom, norm, poisson

from sbi_models.errors import ConfigurationError
from sbi_models.networks import AutoregressiveMixture, CouplingFlow, network_from_json
from sbi_models.networks.autoregressive.discrete_columns import _log_mass

MIXED = ((0, "categorical", 3), (2, "count", 4), (3, "categorical", 2))
"""Discrete columns beside a continuous one, column 1."""


def rng(seed):
    return torch.Generator().manual_seed(seed)


def network(theta_dim=4, discrete=MIXED, *, seed=0, size=0.3, dtype=torch.float64, **arguments):
    """A small network with random weights everywhere."""
    made = AutoregressiveMixture(**{"components": 3, "trunk_width": 16, "head_width": 8, **arguments})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made.build(theta_dim, 2, discrete)
        for parameter in made.parameters():
            parameter.data += size * torch.randn(parameter.shape)
    return made.to(dtype)


def cells(number=400, low=-12.0, high=12.0):
    """Every value of the discrete columns of MIXED, with midpoints of a line, (n, 4), and their distance."""
    step = (high - low) / number
    line = low + step * (torch.arange(number, dtype=torch.float64) + 0.5)
    parts = [
        torch.stack(
            [torch.full_like(line, float(a)), line, *(torch.full_like(line, float(k)) for k in (b, c))], dim=1
        )
        for a, b, c in product(range(3), range(5), range(2))
    ]
    return torch.cat(parts), step


CONDITION = torch.tensor([[0.4, -0.7]], dtype=torch.float64)


@pytest.mark.parametrize(("order", "seed"), [("given", 0), ("random", 1), ("random", 2), ("random", 3)])
def test_probabilities_of_a_mixed_order_sum_to_one(order, seed):
    """Sum over categories and bounded counts, quadrature over the continuous column, in any order."""
    made = network(order=order, seed=seed)
    theta, step = cells()
    with torch.no_grad():
        total = made.log_prob(theta, CONDITION.expand(len(theta), -1)).exp().sum() * step
    assert float(total) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("seed", [1, 2])
def test_draws_have_these_probabilities(seed):
    """Frequencies of all 30 cells of discrete values in 100 000 draws, and the mean of the continuous column
    in each, against sums of the density; draws are whole numbers."""
    made = network(seed=seed)
    theta, step = cells()
    draws = made.sample(100_000, CONDITION, rng(seed)).detach()[0]
    with torch.no_grad():
        mass = made.log_prob(theta, CONDITION.expand(len(theta), -1)).exp().reshape(30, -1) * step
    assert torch.equal(draws[:, [0, 2, 3]], draws[:, [0, 2, 3]].round())
    cell = (draws[:, 0] * 10 + draws[:, 2] * 2 + draws[:, 3]).long()
    shares = torch.bincount(cell, minlength=30) / len(draws)
    exact = mass.sum(dim=1)
    assert ((shares - exact).abs() < 5 * (exact * (1 - exact) / len(draws)).sqrt() + 1e-4).all()
    means = (mass * theta[:, 1].reshape(30, -1)).sum(dim=1) / exact
    for k in range(30):
        own = draws[cell == k, 1]
        if len(own) > 100:
            assert float(own.mean() - means[k]) == pytest.approx(
                0.0, abs=float(5 * own.std()) / len(own) ** 0.5
            )


@pytest.mark.parametrize("size", [0.05, 0.6])
def test_probabilities_of_unbounded_counts_sum_to_one(size):
    """In single precision, too, far beyond the counts that were seen."""
    made = network(1, ((0, "count", 2**24),), size=size, dtype=torch.float32)
    made.learn_discrete(torch.from_numpy(np.random.default_rng(0).poisson(30.0, (500, 1))).float())
    counts = torch.arange(200_000.0)[:, None]
    with torch.no_grad():
        logs = made.log_prob(counts, CONDITION.float().expand(len(counts), -1)).double()
    assert float(logs.exp().sum()) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("count", [1, 3, 20, 4_000, 10**6])
def test_the_probability_of_a_count_is_that_of_its_interval(count):
    """Of log-normal laws a count k has P(k <= x < k + 1), by SciPy, from sds far wider than its interval to
    ones a hundred times narrower."""
    made = network(1, ((0, "count", 2**24),), components=1)
    made.learn_discrete(torch.tensor([[1.0], [3.0], [8.0]], dtype=torch.float64))
    laws = made.laws
    for sd in (1.0, 0.3 / count, 0.01 / count):
        mean = math.log(count + 0.4)
        scaled = [torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.full((1, 1, 1), math.log(sd / laws.sd))]
        rest = torch.full((1, 1), (math.log(count + 0.5) - mean) / float(laws.sd), dtype=torch.float64)
        found = laws._log_prob_of_counts(
            torch.tensor([[float(count)]], dtype=torch.float64),
            tuple(part.double() for part in scaled),
            rest,
            torch.zeros(1, dtype=torch.float64),
        )
        exact = norm.cdf(math.log(count + 1), mean, sd) - norm.cdf(math.log(count), mean, sd)
        assert float(found.detach()) == pytest.approx(math.log(exact), abs=1e-4)


def test_one_category_is_certain():
    """A class that simulations always have: probability 1, drawn always."""
    made = network(1, ((0, "categorical", 1),))
    conditions = torch.zeros(5, 2, dtype=torch.float64)
    logs = made.log_prob(torch.zeros(5, 1, dtype=torch.float64), conditions).detach()
    assert float(logs.abs().max()) < 1e-12
    assert not made.sample(7, conditions, rng(0)).any()


def test_the_probability_of_an_interval_is_that_of_the_normal_law():
    """Against SciPy in double precision, from intervals of 1e-6 sds to ones of 30, and 40 sds out; both
    branches agree, and gradients are finite."""
    for lower in (-40.0, -3.0, -0.02, 0.0, 2.5, 37.0):
        for width in (1e-6, 1e-3, 0.049, 0.051, 1.0, 30.0):
            parts = [
                torch.tensor([[[v]]], dtype=torch.float64) for v in (lower, lower + width, width, 0.3, 0.2)
            ]
            parts[3].requires_grad_()
            no = torch.zeros(1, 1, 1, dtype=torch.bool)
            found = _log_mass(*parts, lowest=no, highest=no)
            sd = math.exp(0.2)
            a, b = (lower - 0.3) / sd, (lower + width - 0.3) / sd
            a, b = (-b, -a) if a + b > 0 else (a, b)
            exact = norm.logcdf(b) + np.log(-np.expm1(norm.logcdf(a) - norm.logcdf(b)))
            tolerance = 1e-6 + 1e-9 / min(width, 1.0) if abs(lower) < 5 else 1e-3
            assert float(found.detach()) == pytest.approx(exact, abs=max(tolerance, 2e-16 * a * a / width))
            found.sum().backward()
            assert bool(parts[3].grad.isfinite().all())


def test_a_file_rebuilds_discrete_columns():
    """JSON and tensors give the same probabilities and draws to the bit; a network without discrete columns
    has neither new tensors nor new JSON."""
    made = network(dtype=torch.float32)
    made.learn_discrete(torch.tensor([[0.0, 1.0, 3.0, 1.0], [2.0, -1.0, 4.0, 0.0]]))
    rebuilt = network_from_json(json.loads(json.dumps(made.to_json())))
    rebuilt.load_state_dict(made.state_dict())
    theta = torch.tensor([[2.0, 0.3, 1.0, 0.0]])
    given = CONDITION.float()
    assert torch.equal(rebuilt.log_prob(theta, given), made.log_prob(theta, given))
    assert torch.equal(rebuilt.sample(50, given, rng(1)), made.sample(50, given, rng(1)))
    plain = network(2, ())
    assert plain.to_json()["built_with"] == {"theta_dim": 2, "condition_dim": 2}
    assert not [name for name in plain.state_dict() if name.startswith("laws")]


def test_every_parameter_of_discrete_columns_learns():
    """The heads of categories and what later columns read of them get gradients; all gradients are finite."""
    made = network(order="given")
    theta = torch.stack(
        [
            torch.randint(0, 3, (64,), generator=rng(1)).double(),
            torch.randn(64, generator=rng(2), dtype=torch.float64),
            torch.randint(0, 5, (64,), generator=rng(3)).double(),
            torch.randint(0, 2, (64,), generator=rng(4)).double(),
        ],
        dim=1,
    )
    made.loss(theta, torch.randn(64, 2, generator=rng(5), dtype=torch.float64)).mean().backward()
    for name, parameter in made.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.abs().max() > 0), name


def test_networks_of_continuous_densities_refuse_discrete_columns():
    """Before there are layers, and with the cure; columns that make no sense are refused, too."""
    with pytest.raises(ConfigurationError, match=r"CouplingFlow.*AutoregressiveMixture"):
        CouplingFlow().build(2, 1, ((0, "categorical", 2),))
    for wrong in (
        ((2, "count", 3),),
        ((0, "kind", 3),),
        ((0, "count", 3), (0, "count", 3)),
        ((0, "count", 0),),
    ):
        with pytest.raises(ConfigurationError, match="Expected discrete columns below 2"):
            AutoregressiveMixture().build(2, 1, wrong)


def fitted(theta, conditions, discrete, *, steps=400, seed=0, **arguments):
    """A network after some steps of Adam on all data; hundreds of steps take seconds."""
    torch.manual_seed(seed)
    made = AutoregressiveMixture(**{"components": 6, "trunk_width": 32, "head_width": 32, **arguments})
    made.build(theta.shape[1], conditions.shape[1], discrete)
    made.learn_discrete(theta)
    made.start_from(theta, conditions)
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.randint(0, len(theta), (256,), generator=rng(step))
        optimizer.zero_grad()
        made.loss(theta[rows], conditions[rows]).mean().backward()
        optimizer.step()
        schedule.step()
    return made.eval()


def divergence(made, law, condition, support):
    """Kullback-Leibler divergence, in nats, from an exact law to the network's, and its total variation."""
    given = torch.full((len(support), 1), float(condition))
    with torch.no_grad():
        logs = made.log_prob(torch.as_tensor(support, dtype=torch.float32)[:, None], given).double().numpy()
    exact = law.pmf(support)
    there = exact > 0
    kl = float((exact[there] * (np.log(exact[there]) - logs[there])).sum())
    return kl, 0.5 * float(np.abs(exact - np.exp(logs)).sum())


@pytest.mark.nightly
def test_poisson_laws_of_means_from_a_third_to_a_thousand():
    """Trained on 20 000 counts, the total variation from the exact law is below .05 and the divergence below
    .01 nats, at means of .3, 3, 30, 300 and 950."""
    centre, sd = math.log(17.0), 2.34
    logs = torch.empty(20_000, 1).uniform_(math.log(0.25), math.log(1100.0), generator=rng(1))
    counts = torch.poisson(logs.exp(), generator=rng(2))
    made = fitted(counts, (logs - centre) / sd, ((0, "count", 2**24),), steps=400)
    for mean in (0.3, 3.0, 30.0, 300.0, 950.0):
        kl, variation = divergence(
            made, poisson(mean), (math.log(mean) - centre) / sd, np.arange(int(mean + 12 * mean**0.5 + 20))
        )
        assert kl < 0.01, mean
        assert variation < 0.05, mean


@pytest.mark.nightly
def test_negative_binomial_and_bernoulli_laws():
    """Overdispersed counts of mean 5 to 36, and a probability that is logistic in the condition: at most .01
    nats from the exact laws."""
    c = torch.randn(20_000, 1, generator=rng(3))
    mean = (2.4 + 0.8 * c).exp()
    gamma = torch.from_numpy(np.random.default_rng(4).gamma(3.0, size=(20_000, 1))).float() / 3.0
    counts = torch.poisson(mean * gamma, generator=rng(5))
    choices = torch.bernoulli(torch.sigmoid(2 * c), generator=rng(6))
    made = fitted(counts, c, ((0, "count", 2**24),), steps=400)
    switch = fitted(choices, c, ((0, "categorical", 2),), steps=300)
    for at in (-1.0, 0.0, 1.5):
        law = nbinom(3.0, 3.0 / (3.0 + math.exp(2.4 + 0.8 * at)))
        assert divergence(made, law, at, np.arange(1500))[0] < 0.01
        assert divergence(switch, bernoulli(1 / (1 + math.exp(-2 * at))), at, np.arange(2))[0] < 0.005


@pytest.mark.nightly
def test_a_joint_law_of_a_category_a_number_and_a_count():
    """choice is 0 or 1, x given it is normal around -2 or 2 with sd .2, and a count given it is Poisson: the
    exact joint density, whichever comes first."""
    n = 20_000
    c = torch.randn(n, 1, generator=rng(1))
    choice = torch.bernoulli(torch.sigmoid(c), generator=rng(2))
    x = 0.5 * c + (4 * choice - 2) + 0.2 * torch.randn(n, 1, generator=rng(3))
    count = torch.poisson((1 + choice + 0.3 * c).exp(), generator=rng(4))
    theta = torch.cat([choice, x, count], dim=1)
    test = slice(n - 2_000, n)
    exact = (
        torch.distributions.Bernoulli(torch.sigmoid(c)).log_prob(choice)
        + torch.distributions.Normal(0.5 * c + 4 * choice - 2, 0.2).log_prob(x)
        + torch.distributions.Poisson((1 + choice + 0.3 * c).exp()).log_prob(count)
    )[test, 0]
    discrete = ((0, "categorical", 2), (2, "count", 2**24))
    for steps, columns in ((200, [0, 1, 2]), (400, [2, 1, 0])):
        own = tuple((columns.index(column), kind, size) for column, kind, size in discrete)
        made = fitted(theta[: test.start, columns], c[: test.start], own, steps=steps, order="given")
        with torch.no_grad():
            found = made.log_prob(theta[test][:, columns], c[test])
        assert float((exact - found).mean()) < 0.03, columns
