"""Scoring rules: proper, minimal where they should be, and densities that are densities."""

import inspect
import math

import network_contract
import pytest
import test_network_contracts as contracts
import torch
from scipy.stats import expon, norm

from sbi_models.networks import (
    MeanScore,
    MedianScore,
    MixtureScore,
    MultivariateNormalScore,
    QuantileScore,
    ScoringRuleNetwork,
)

CONTRACT = {
    name: test
    for name, test in vars(contracts).items()
    if name.startswith("test_")
    and list(inspect.signature(test).parameters) == ["name"]
    and any("scoring_rules" in mark.args[1] for mark in test.pytestmark)
}
"""The tests of the contract that every inference network goes through."""


def rng(seed):
    return torch.Generator().manual_seed(seed)


def numbers(rule, n, d, *, seed=0, size=0.5):
    """Random numbers of a head, in double precision."""
    return size * torch.randn(n, rule.head_width(d), generator=rng(seed), dtype=torch.float64)


@pytest.mark.parametrize("contract", sorted(CONTRACT))
@pytest.mark.parametrize(
    "rules",
    [["mean"], ["mean", "median", "quantile"], "mv_normal", {"b": "mixture", "a": "mean"}],
    ids=["mean", "points", "mv_normal", "named"],
)
def test_other_rules_keep_the_contract_too(contract, rules, monkeypatch):
    """Networks of point rules only, of one density, and with names of one's own keep every promise of an
    inference network."""
    monkeypatch.setitem(network_contract.SMALL, "scoring_rules", {"widths": (16, 16), "scoring_rules": rules})
    CONTRACT[contract]("scoring_rules")


# --- properness


@pytest.mark.parametrize(
    ("rule", "truth"),
    [
        (MeanScore(), [[1.0]]),
        (MedianScore(), [[math.log(2)]]),
        (QuantileScore(levels=(0.1, 0.3, 0.8)), [[[-math.log(0.9)], [-math.log(0.7)], [-math.log(0.2)]]]),
    ],
)
def test_point_rules_are_lowest_at_the_truth(rule, truth):
    """Of an exponential distribution, the expected score rises with every step away from the exact mean,
    median and quantiles."""
    levels = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    theta = -torch.log1p(-levels)[:, None]  # the distribution itself, by its quantiles, not a sample
    truth = torch.tensor(truth, dtype=torch.float64)

    def expected(prediction):
        return rule.score(prediction, theta).mean().item()

    best = expected(truth)
    for index in range(truth.numel()):
        for step in (-0.2, -0.05, 0.05, 0.2):
            moved = truth.clone()
            moved.view(-1)[index] += step
            assert expected(moved) > best + 1e-4


@pytest.mark.nightly_cases("rule1")
@pytest.mark.parametrize("rule", [MultivariateNormalScore(), MixtureScore(components=3)])
def test_densities_are_lowest_at_the_truth(rule):
    """With draws of the density itself, the expected score rises with every step of every number of the head,
    and is flat at the truth."""
    true = numbers(rule, 1, 2, seed=4)
    theta = rule.sample(100_000, rule.predict(true, 2), rng(0))[0]
    given = true.requires_grad_()
    best = rule.score(rule.predict(given.expand(len(theta), -1), 2), theta)
    (slope,) = torch.autograd.grad(best.mean(), given)
    assert (
        slope.abs().max() < 0.02
    )  # Monte Carlo error of a mean over 100 000 draws: 0.003 to 0.005 a unit of sd
    with torch.no_grad():
        for index in range(true.shape[1]):
            for step in (-0.3, 0.3):
                moved = true.clone()
                moved[0, index] += step
                assert (
                    rule.score(rule.predict(moved.expand(len(theta), -1), 2), theta).mean()
                    > best.mean() + 1e-4
                )


# --- quantiles


@pytest.mark.parametrize("size", [0.1, 3.0, 1000.0])
def test_quantiles_never_cross(size):
    """Whatever the head says, quantiles do not fall along the levels, also in float32; a median alone may be
    a quantile."""
    rule = QuantileScore(levels=(0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
    for dtype in (torch.float32, torch.float64):
        quantiles = rule.predict(numbers(rule, 500, 3, size=size).to(dtype), 3)
        assert quantiles.shape == (500, 7, 3)
        assert quantiles.isfinite().all()
        assert quantiles.diff(dim=1).min() >= 0
    assert QuantileScore(levels=(0.5,)).predict(torch.zeros(1, 1), 1).tolist() == [[[0.0]]]


def test_quantiles_reach_any_increasing_numbers():
    """Any increasing quantiles are those of some numbers of the head; zeros give those of a standard
    normal."""
    rule = QuantileScore(levels=(0.1, 0.2, 0.7))
    zeros = rule.predict(torch.zeros(1, 3, dtype=torch.float64), 1)[0, :, 0]
    torch.testing.assert_close(zeros, torch.tensor(norm.ppf(rule.levels)))
    head = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([[[-3.0], [-2.9], [4.0]]], dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        [head], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=0, tolerance_grad=1e-12
    )

    def miss():
        optimizer.zero_grad()
        error = (rule.predict(head, 1) - wanted).square().sum()
        error.backward()
        return error

    optimizer.step(miss)
    torch.testing.assert_close(rule.predict(head, 1), wanted, atol=1e-4, rtol=0)


# --- densities


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_normal_is_that_of_torch(d):
    """log_prob, mean and covariance are those of torch.distributions, for covariances of any shape, scale and
    position."""
    rule = MultivariateNormalScore()
    prediction = rule.predict(numbers(rule, 20, d, size=1.5), d)
    shift, scale = (
        torch.linspace(-100, 100, d, dtype=torch.float64),
        torch.logspace(-3, 2, d, dtype=torch.float64),
    )
    standard = rule.estimates(
        prediction, torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64)
    )
    exact = torch.distributions.MultivariateNormal(standard["mean"], standard["covariance"])
    torch.manual_seed(0)
    theta = exact.sample()
    torch.testing.assert_close(rule.log_prob(prediction, theta), exact.log_prob(theta), rtol=1e-6, atol=1e-6)
    moved = rule.estimates(prediction, shift, scale)
    torch.testing.assert_close(moved["mean"], shift + scale * standard["mean"])
    torch.testing.assert_close(
        moved["covariance"], torch.diag(scale) @ standard["covariance"] @ torch.diag(scale)
    )


def test_the_mixture_is_that_of_torch():
    """log_prob is that of torch.distributions' mixture with the weights, means and covariances that are
    estimated."""
    rule = MixtureScore(components=3)
    prediction = rule.predict(numbers(rule, 20, 2, size=1.5), 2)
    parts = rule.estimates(
        prediction, torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    )
    exact = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(parts["weights"]),
        torch.distributions.MultivariateNormal(parts["means"], parts["covariances"]),
    )
    torch.manual_seed(0)
    theta = exact.sample()
    torch.testing.assert_close(rule.log_prob(prediction, theta), exact.log_prob(theta), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", [MultivariateNormalScore(), MixtureScore(components=3)])
def test_densities_integrate_to_one(rule):
    """exp(log_prob) on a fine grid of the plane sums to 1, within 1e-6."""
    prediction = rule.predict(numbers(rule, 1, 2), 2)
    axis = torch.linspace(-16, 16, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_p = rule.log_prob(
        {key: value.expand(len(grid), *value.shape[1:]) for key, value in prediction.items()}, grid
    )
    assert log_p.exp().sum().item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("rule", [MultivariateNormalScore(), MixtureScore(components=3)])
def test_draws_are_those_of_the_density(rule):
    """Mean and covariance of 200 000 draws are the exact ones, within five standard errors."""
    prediction = rule.predict(numbers(rule, 2, 2, seed=3), 2)
    draws = rule.sample(200_000, prediction, rng(1))
    parts = rule.estimates(
        prediction, torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    )
    weights = parts.get("weights", torch.ones(2, 1, dtype=torch.float64))
    means = parts.get("means", parts.get("mean")[:, None] if "mean" in parts else None)
    covariances = parts.get(
        "covariances", parts.get("covariance")[:, None] if "covariance" in parts else None
    )
    mean = (weights[..., None] * means).sum(dim=1)
    error = means - mean[:, None]
    covariance = (weights[..., None, None] * (covariances + error[..., :, None] * error[..., None, :])).sum(
        dim=1
    )
    sd = torch.diagonal(covariance, dim1=-2, dim2=-1).sqrt()
    assert ((draws.mean(dim=1) - mean).abs() < 5 * sd / 200_000**0.5).all()
    sample_covariance = torch.stack([torch.cov(row.T) for row in draws])
    assert (
        (sample_covariance - covariance).abs() < 5 * 2 * sd[:, :, None] * sd[:, None, :] / 200_000**0.5
    ).all()


def test_shares_of_the_components_are_their_weights():
    """Draws of far-away components come in the shares of the weights, also of a component of almost no
    weight."""
    rule = MixtureScore(components=3)
    means = torch.tensor([[[-50.0], [0.0], [50.0]]])
    prediction = {
        "mean": means,
        "log_d": torch.zeros(1, 3, 1),
        "t": torch.ones(1, 3, 1, 1),
        "log_weights": torch.tensor([[0.6, 1e-6, 0.4 - 1e-6]]).log(),
    }
    draws = rule.sample(100_000, prediction, rng(0))[0, :, 0]
    assert (draws < -25).float().mean().item() == pytest.approx(0.6, abs=5 * (0.24 / 1e5) ** 0.5)
    assert (draws > 25).float().mean().item() == pytest.approx(0.4, abs=5 * (0.24 / 1e5) ** 0.5)


def test_the_first_density_answers():
    """With several densities, draws and log densities are those of the first; the loss is the sum of all
    scores."""
    network = ScoringRuleNetwork({"mean": "mean", "one": "mixture", "two": "mv_normal"}, widths=(8, 8))
    network.build(2, 3)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=rng(0))
    theta, conditions = torch.randn(6, 2, generator=rng(1)), torch.randn(6, 3, generator=rng(2))
    predictions = network.predictions(conditions)
    assert torch.equal(
        network.log_prob(theta, conditions), network.rules["one"].log_prob(predictions["one"], theta)
    )
    scores = [network.rules[name].score(predictions[name], theta) for name in ("mean", "one", "two")]
    torch.testing.assert_close(network.loss(theta, conditions), sum(scores))
    estimates = network.estimate(conditions)
    assert estimates["mean"].shape == (6, 2)
    assert {key: tuple(value.shape) for key, value in estimates["two"].items()} == {
        "mean": (6, 2),
        "covariance": (6, 2, 2),
    }


# --- training


def trained(rules, theta, conditions, *, steps=800, seed=0):
    """A network trained on pairs with Adam and a falling rate."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ScoringRuleNetwork(rules, widths=(32, 32))
        network.build(theta.shape[1], conditions.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = rng(seed)
    for _ in range(steps):
        rows = torch.randint(len(theta), (512,), generator=order)
        optimizer.zero_grad()
        network.loss(theta[rows], conditions[rows]).mean().backward()
        optimizer.step()
        schedule.step()
    return network


@pytest.mark.nightly
def test_exact_estimates_of_a_skewed_posterior_are_learned():
    """theta ~ Exponential of mean exp(x / 2): mean, median and quantiles are learned within 6 % of the
    posterior sd, on average over x."""
    x = torch.randn(50_000, 1, generator=rng(0))
    theta = torch.empty(50_000, 1).exponential_(generator=rng(1)) * torch.exp(x / 2)
    levels = (0.1, 0.5, 0.9)
    network = trained({"mean": "mean", "median": "median", "q": QuantileScore(levels)}, theta, x)
    at = torch.linspace(-1.5, 1.5, 31)[:, None]
    sd = torch.exp(at / 2)
    with torch.no_grad():
        estimates = network.estimate(at)
    exact = {
        "mean": sd,
        "median": math.log(2) * sd,
        "q": torch.tensor(expon.ppf(levels), dtype=torch.float32)[:, None] * sd[:, None],
    }
    for name, value in estimates.items():
        error = (value - exact[name]) / (sd if value.ndim == 2 else sd[:, None])
        assert error.square().mean().sqrt() < 0.06, name


@pytest.mark.nightly
def test_two_modes_are_learned():
    """theta = +-(1 + x / 4) + noise of sd 0.2, signs 30 : 70: the mixture gives modes, weights and sds, and
    log densities to 0.03 nats."""
    x = torch.randn(20_000, 1, generator=rng(0)).clamp(-2, 2)
    sign = torch.where(torch.rand(20_000, 1, generator=rng(1)) < 0.3, 1.0, -1.0)
    theta = sign * (1 + x / 4) + 0.2 * torch.randn(20_000, 1, generator=rng(2))
    network = trained(MixtureScore(components=2), theta[:-4000], x[:-4000])
    place = 1 + x / 4
    exact = torch.logaddexp(
        math.log(0.3) + torch.distributions.Normal(place, 0.2).log_prob(theta),
        math.log(0.7) + torch.distributions.Normal(-place, 0.2).log_prob(theta),
    )[-4000:, 0]
    with torch.no_grad():
        lost = exact - network.log_prob(theta[-4000:], x[-4000:])
        parts = network.estimate(torch.zeros(1, 1))["mixture"]
    assert lost.mean() < 0.03
    up = int(parts["means"][0, :, 0].argmax())
    assert parts["weights"][0, up].item() == pytest.approx(0.3, abs=0.03)
    assert sorted(parts["means"].flatten().tolist()) == pytest.approx([-1.0, 1.0], abs=0.04)
    assert parts["covariances"].flatten().sqrt().tolist() == pytest.approx([0.2, 0.2], rel=0.1)


def test_components_part_from_the_start():
    """Zeros of the head give components at different places, so that their gradients differ."""
    for components, d in ((2, 1), (4, 2), (10, 5)):
        rule = MixtureScore(components)
        means = rule.predict(torch.zeros(1, rule.head_width(d), dtype=torch.float64), d)["mean"][0]
        assert means.isfinite().all()
        assert torch.cdist(means, means)[torch.triu_indices(components, components, 1).unbind()].min() > 0.2
