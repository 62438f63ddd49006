"""The normal model and its exact posterior, against brute force."""

import csv

import numpy as np
import pytest
from scipy.stats import invgamma, kstest, norm
from scipy.stats import t as student

from sbi_models import seeding
from sbi_models.errors import DataError
from sbi_models.simulators.benchmarks import Michelson, NormalModel
from sbi_models.simulators.benchmarks.michelson import DATA, MODEL


class Grid:
    """Prior times likelihood on a rectangle of (mu, v) that holds all but a negligible part of the
    posterior."""

    def __init__(self, model, x, *, size=1401):
        x = np.ravel(x)
        mean, sd = model.posterior(x).mean, model.posterior(x).sd
        self.mu, self.v = (np.linspace(mean[i] - 14 * sd[i], mean[i] + 14 * sd[i], size) for i in range(2))
        mu, v = self.mu[:, None], self.v[None, :]
        log_prior = norm.logpdf(mu, model.location, model.scale) + norm.logpdf(
            v, 2 * np.log(model.scale), 1.0
        )
        squares = sum((value - mu) ** 2 for value in x)
        log_joint = log_prior - squares / np.exp(v) / 2 - len(x) * (v + np.log(2 * np.pi)) / 2
        self.cell = (self.mu[1] - self.mu[0]) * (self.v[1] - self.v[0])
        self.log_evidence = np.log(np.exp(log_joint - log_joint.max()).sum() * self.cell) + log_joint.max()
        self.log_density = log_joint - self.log_evidence
        self.p = np.exp(self.log_density) * self.cell

    def expect(self, values):
        return float((self.p * values).sum())


CASES = {
    "unit, 20 observations": (NormalModel(), 0),
    "unit, 3 observations": (NormalModel(num_observations=3), 1),
    "shifted and scaled": (NormalModel(location=-7.0, scale=30.0, num_observations=10), 2),
    "Michelson": (Michelson(), 3),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def case(request):
    model, seed = request.param
    x = model.simulator.sample(1, seed=seed)["x"][0]
    return model, model.posterior(x), Grid(model, x)


def test_moments_equal_brute_force(case):
    """Mean, sd and spread agree with a sum over a grid of two million points to 5 digits."""
    _, posterior, grid = case
    mu, v = grid.mu[:, None], grid.v[None, :]
    mean = np.array([grid.expect(mu), grid.expect(v)])
    sd = np.sqrt([grid.expect((mu - mean[0]) ** 2), grid.expect((v - mean[1]) ** 2)])
    np.testing.assert_allclose((posterior.mean - mean) / sd, 0.0, atol=1e-6)
    np.testing.assert_allclose(posterior.sd, sd, rtol=1e-5)
    spread = grid.expect(np.exp(v / 2))
    deviation = np.sqrt(grid.expect((np.exp(v / 2) - spread) ** 2))
    np.testing.assert_allclose(posterior.spread, (spread, deviation), rtol=1e-5)


def test_quantiles_equal_brute_force(case):
    """Marginal quantiles leave, on the grid, the share below them that they name."""
    _, posterior, grid = case
    levels = [0.025, 0.3, 0.5, 0.84, 0.975]
    quantiles = posterior.quantiles(levels)
    for i, points in enumerate((grid.mu, grid.v)):
        marginal = grid.p.sum(axis=1 - i)
        below = np.interp(quantiles[:, i], points, np.cumsum(marginal) - marginal / 2)
        np.testing.assert_allclose(below, levels, atol=1e-4)


def test_log_prob_equals_brute_force_and_integrates_to_one(case):
    """The joint log density equals log prior plus log likelihood minus the grid's log evidence, and its
    integral is 1."""
    _, posterior, grid = case
    rows = slice(0, None, 10)
    mu, v = np.meshgrid(grid.mu[rows], grid.v[rows], indexing="ij")
    log_prob = posterior.log_prob(np.stack([mu.ravel(), v.ravel()], axis=-1)).reshape(mu.shape)
    np.testing.assert_allclose(log_prob, grid.log_density[rows, rows], atol=1e-5)
    assert np.exp(log_prob).sum() * grid.cell * 10**2 == pytest.approx(1.0, abs=1e-5)


def test_marginal_densities_equal_brute_force_and_integrate_to_one(case):
    """The marginal densities are the grid's sums over the other parameter."""
    _, posterior, grid = case
    for density, points, axis in (
        (posterior.mean_density, grid.mu, 1),
        (posterior.log_variance_density, grid.v, 0),
    ):
        values, step = density(points), points[1] - points[0]
        assert values.sum() * step == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(values * step, grid.p.sum(axis=axis), atol=1e-4 * (values * step).max())


def test_draws_follow_the_marginals(case):
    """20 000 draws pass a Kolmogorov-Smirnov test against both exact marginals; mean, sd and correlation are
    those of the grid."""
    _, posterior, grid = case
    draws = posterior.sample(20_000, seed=4)
    for i, points in enumerate((grid.mu, grid.v)):
        marginal = grid.p.sum(axis=1 - i)
        cdf = np.cumsum(marginal) - marginal / 2
        assert (
            kstest(draws[:, i], lambda value, points=points, cdf=cdf: np.interp(value, points, cdf)).pvalue
            > 0.001
        )
    standard = (draws - posterior.mean) / posterior.sd
    np.testing.assert_allclose(standard.mean(axis=0), 0.0, atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(standard.std(axis=0), 1.0, atol=0.03)
    covariance = grid.expect(
        (grid.mu[:, None] - posterior.mean[0]) * (grid.v[None, :] - posterior.mean[1])
    ) / np.prod(posterior.sd)
    assert np.mean(standard[:, 0] * standard[:, 1]) == pytest.approx(covariance, abs=0.05)
    np.testing.assert_array_equal(posterior.sample(20_000, seed=4), draws)


def test_with_many_observations_the_posterior_is_the_one_of_a_flat_prior():
    """For n = 3000 the prior no longer matters: mu is Student t, exp(v) scaled inverse chi-square, as under
    the flat prior of (mu, v)."""
    n = 3000
    x = seeding.generator(5, "data").normal(0.3, 1.2, size=n)
    posterior, s2 = NormalModel().posterior(x), x.var(ddof=1)
    levels = np.array([0.05, 0.5, 0.95])
    quantiles = posterior.quantiles(levels)
    sd = posterior.sd
    np.testing.assert_allclose(
        (quantiles[:, 0] - student.ppf(levels, n - 1, x.mean(), np.sqrt(s2 / n))) / sd[0], 0.0, atol=0.05
    )
    flat = np.log(invgamma.ppf(levels, (n - 1) / 2, scale=(n - 1) * s2 / 2))
    np.testing.assert_allclose((quantiles[:, 1] - flat) / sd[1], 0.0, atol=0.05)


def test_units_only_relabel_the_posterior():
    """Observations in another unit and from another zero give the same posterior, shifted and scaled."""
    x = NormalModel().simulator.sample(1, seed=6)["x"][0]
    plain, scaled = NormalModel().posterior(x), NormalModel(location=50.0, scale=10.0).posterior(50 + 10 * x)
    np.testing.assert_allclose(scaled.mean, plain.mean * [10, 1] + [50, 2 * np.log(10)])
    np.testing.assert_allclose(scaled.sd, plain.sd * [10, 1])
    np.testing.assert_allclose(
        scaled.quantiles([0.1, 0.9]), plain.quantiles([0.1, 0.9]) * [10, 1] + [50, 2 * np.log(10)]
    )
    np.testing.assert_allclose(scaled.spread, np.multiply(plain.spread, 10))
    theta = np.array([[0.2, -0.3]])
    np.testing.assert_allclose(
        scaled.log_prob(theta * [10, 1] + [50, 2 * np.log(10)]), plain.log_prob(theta) - np.log(10)
    )


def test_the_truth_has_uniform_ranks_in_the_exact_posterior():
    """Simulation-based calibration of simulator and posterior together: P(parameter <= truth) is uniform over
    300 simulations."""
    model = NormalModel(num_observations=6)
    data = model.simulator.sample(300, seed=7)
    draws = [model.posterior(x).sample(199, seed=i) for i, x in enumerate(data["x"])]
    ranks = np.array(
        [(np.sum(d < theta, axis=0) + 0.5) / 200 for d, theta in zip(draws, data["theta"], strict=True)]
    )
    for i in range(2):
        assert kstest(ranks[:, i], "uniform").pvalue > 0.001


def test_the_prior_is_the_one_of_the_formula():
    """mu ~ Normal(location, scale) and v ~ Normal(2 log scale, 1), independent; x scatters around mu with sd
    exp(v / 2)."""
    model = Michelson()
    data = model.simulator.sample(4000, seed=8)
    mu, v = data["theta"].T
    assert kstest(mu, norm(800, 100).cdf).pvalue > 0.001
    assert kstest(v, norm(2 * np.log(100), 1).cdf).pvalue > 0.001
    assert abs(np.corrcoef(mu, v)[0, 1]) < 5 / np.sqrt(4000)
    standard = ((data["x"][..., 0] - mu[:, None]) / np.exp(v[:, None] / 2)).ravel()
    assert kstest(standard, "norm").pvalue > 0.001


def test_michelsons_data_are_the_published_ones():
    """Five experiments of twenty runs, mean 852.4 and sd 79.0 (Stigler 1977), and the posterior of each lies
    by its own mean."""
    with DATA.open() as file:
        rows = [(int(row["experiment"]), float(row["speed"])) for row in csv.DictReader(file)]
    speeds = np.array([speed for _, speed in rows])
    assert len(rows) == 100
    assert speeds.mean() == pytest.approx(852.4)
    assert speeds.std(ddof=1) == pytest.approx(79.01, abs=0.01)
    for experiment in range(1, 6):
        x = np.array([speed for number, speed in rows if number == experiment])
        assert len(x) == 20
        posterior = MODEL.posterior(x)
        assert abs(posterior.mean[0] - x.mean()) < 0.5 * posterior.sd[0]


@pytest.mark.parametrize("x", [[], [np.nan, 1.0], [np.inf]])
def test_observations_must_be_there_and_finite(x):
    """No posterior without observations, or with NaN or infinity among them."""
    with pytest.raises(DataError, match="at least one finite observation"):
        NormalModel().posterior(np.array(x))
