"""What every benchmark promises: shapes, seeds, supports, and densities that belong to what is drawn."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import chi2, expon, kstest, lognorm, norm, truncnorm, uniform

from sbi_models.errors import DataError
from sbi_models.simulators.benchmarks import BENCHMARKS, TractableBenchmark

every = pytest.mark.parametrize("model", BENCHMARKS.values(), ids=BENCHMARKS.keys())
TRACTABLE = {name: model for name, model in BENCHMARKS.items() if isinstance(model, TractableBenchmark)}
every_tractable = pytest.mark.parametrize("model", TRACTABLE.values(), ids=TRACTABLE.keys())


@pytest.mark.nightly_cases("hare_lynx", "lotka_volterra")
@every
def test_simulations_have_the_shapes_named(model):
    """theta and x are finite floats of the model's shapes, within its bounds, and finite in single precision
    too."""
    data = model.simulator.sample(600, seed=1)
    assert set(data) == {"theta", "x"}
    assert data["theta"].shape == (600, len(model.names))
    assert data["x"].shape == (600, *model.x_shape)
    assert len(model.lower) == len(model.upper) == len(set(model.names)) == len(model.names)
    assert (data["theta"] > model.lower).all()
    assert (data["theta"] < model.upper).all()
    for value in data.values():
        assert value.dtype == np.float64
        assert np.isfinite(value.astype(np.float32)).all()


@pytest.mark.nightly_cases("hare_lynx", "lotka_volterra")
@every
def test_the_seed_decides_and_fewer_are_the_first_of_more(model):
    """Equal seeds give equal rows to the bit, however many; another seed gives others, and no two rows are
    equal."""
    data = model.simulator.sample(300, seed=2)
    few = model.simulator.sample(7, seed=2)
    for key, value in few.items():
        np.testing.assert_array_equal(value, data[key][:7])
    assert not np.any(model.simulator.sample(7, seed=3)["theta"] == few["theta"])
    assert len(np.unique(data["theta"], axis=0)) == 300


@pytest.mark.nightly_cases("hare_lynx", "lotka_volterra")
@every
def test_each_row_is_its_own_simulation(model):
    """Fixing theta to one value for all rows leaves x to chance alone, and x never depends on the parameters
    of another row."""
    theta = model.simulator.sample(256, seed=4)["theta"]
    changed = theta.copy()
    changed[1:] = model.simulator.sample(256, seed=5)["theta"][1:]
    first, second = (model.simulator.sample(256, seed=6, theta=value)["x"] for value in (theta, changed))
    if type(model).__name__ not in (
        "SIR",
        "Influenza",
        "SLCPDistractors",
    ):  # these use up random numbers as theta demands
        np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[1:], second[1:])


@every
def test_models_are_frozen_and_equal_by_value(model):
    """A model cannot be changed, and two of the same constants are equal."""
    assert model == type(model)()
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.dim = 3


@pytest.mark.nightly_cases("hare_lynx", "lotka_volterra")
@every
def test_the_prior_has_no_density_outside_its_bounds(model):
    """log_prior is finite within the bounds and -inf beyond any of them."""
    theta = model.simulator.sample(50, seed=7)["theta"]
    assert model.log_prior(theta).shape == (50,)
    assert np.isfinite(model.log_prior(theta)).all()
    for i in range(len(model.names)):
        for bound, outward in ((model.lower[i], -1.0), (model.upper[i], 1.0)):
            if np.isfinite(bound):
                outside = theta.copy()
                outside[:, i] = bound + outward * 0.1
                assert (model.log_prior(outside) == -np.inf).all()
                if isinstance(model, TractableBenchmark):
                    assert model.log_joint(outside[0], np.ones(model.x_shape)) == -np.inf


@every
def test_the_density_of_the_prior_is_that_of_its_draws(model):
    """E[q / p] over draws of p is 1 for a density q within p: a Gaussian (in log theta, if theta is positive)
    or a smaller box."""
    theta = model.prior(40_000, np.random.default_rng(8))["theta"]
    positive = (model.lower == 0) & np.isinf(model.upper)
    points = np.where(positive, np.log(np.where(positive, theta, 1.0)), theta)
    # A narrower Gaussian around the mean, in independent principal directions, which keeps the ratio's
    # variance small.
    mean, half = points.mean(axis=0), np.linalg.cholesky(np.linalg.inv(np.cov(points.T) * 0.6))
    log_q = (
        -(((points - mean) @ half) ** 2).sum(axis=1) / 2
        + np.log(np.diag(half)).sum()
        - len(mean) / 2 * np.log(2 * np.pi)
    )
    log_q -= np.where(positive, points, 0.0).sum(axis=1)
    if np.isfinite(model.lower).all() and np.isfinite(model.upper).all():
        inner = (np.abs(theta - (model.lower + model.upper) / 2) < 0.4 * (model.upper - model.lower)).all(
            axis=1
        )
        log_q = np.where(inner, -np.log(0.8 * (model.upper - model.lower)).sum(), -np.inf)
    ratio = np.exp(log_q - model.log_prior(theta))
    assert ratio.mean() == pytest.approx(1.0, abs=5 * ratio.std() / np.sqrt(len(ratio)))
    assert ratio.std() < 5


@pytest.mark.nightly_cases("hare_lynx", "lotka_volterra")
@every_tractable
def test_log_likelihood_broadcasts(model):
    """Rows against rows, one theta against rows, and rows against one x give the same numbers; log_joint adds
    the prior."""
    data = model.simulator.sample(5, seed=9)
    theta, x = data["theta"], data["x"]
    table = model.log_likelihood(theta[:, None], x[None])
    assert table.shape == (5, 5)
    assert np.isfinite(np.diag(table)).all()
    np.testing.assert_allclose(model.log_likelihood(theta, x), np.diag(table), rtol=1e-9)
    np.testing.assert_allclose(model.log_likelihood(theta, x[2]), table[:, 2], rtol=1e-9)
    np.testing.assert_allclose(model.log_likelihood(theta[2], x), table[2], rtol=1e-9)
    np.testing.assert_allclose(model.log_joint(theta, x), model.log_prior(theta) + np.diag(table), rtol=1e-9)


@pytest.mark.nightly_cases("hare_lynx", "lotka_volterra")
@every_tractable
def test_the_likelihood_is_that_of_the_draws(model):
    """E[p(x | theta') / p(x | theta)] over x ~ p(x | theta) is 1 for a theta' close by: the density is that
    of the simulator.

    Of all functions of x with this mean for every theta', only a likelihood has it (up to a factor that theta
    does not enter).
    """
    rng = np.random.default_rng(10)
    theta = model.prior(2, rng)["theta"] * 0.7 + np.where(model.lower == 0, 0.1, 0.0)
    for one in theta:
        x = model.likelihood(np.broadcast_to(one, (4000, len(one))), rng)["x"]
        here = np.asarray(model.log_likelihood(one, x))
        for i in range(len(one)):
            near, step = one.copy(), 0.1
            for _ in range(6):
                near[i] = one[i] + step * (abs(one[i]) + 0.1)
                log_ratio = np.asarray(model.log_likelihood(near, x)) - here
                step *= np.clip(0.3 / log_ratio.std(), 0.01, 100.0)
                if 0.1 < log_ratio.std() < 0.6:
                    break
            ratio = np.exp(log_ratio)
            assert ratio.std() > 0.05
            assert ratio.mean() == pytest.approx(1.0, abs=5 * ratio.std() / np.sqrt(len(x)))


def test_gaussian_data_lie_a_chi_square_below_the_peak():
    """Twice the log density below its peak is chi-square for Gaussian data, here with the 8 numbers of
    slcp."""
    model = BENCHMARKS["slcp"]
    theta = np.broadcast_to(np.array([0.7, -2.9, -1.3, 1.1, 0.6]), (4000, 5))
    x = model.likelihood(theta, np.random.default_rng(11))["x"]
    var1, var2, cov = model.covariance(theta[0])
    peak = -2 * np.log(var1 * var2 - cov**2) - 4 * np.log(2 * np.pi)
    squares = 2 * (peak - model.log_likelihood(theta, x))
    for level in (0.1, 0.5, 0.9):
        assert np.mean(squares < chi2(8).ppf(level)) == pytest.approx(
            level, abs=5 * np.sqrt(level * (1 - level) / 4000)
        )


POSTERIORS = [
    "gaussian_linear",
    "gaussian_linear_uniform",
    "gaussian_mixture",
    "inverse_kinematics",
    "sir",
    "two_moons",
]


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_posterior_needs_one_finite_data_set(name):
    """Data of another shape, or with NaN in them, are refused with the shape expected."""
    model = BENCHMARKS[name]
    for x in (np.zeros(7), np.full(model.x_shape, np.nan), np.zeros((2, *model.x_shape))):
        with pytest.raises(DataError, match=r"Expected one finite data set x of shape"):
            model.posterior(x)


def half(mean, sd):
    """A normal distribution truncated to positive values."""
    return truncnorm(-mean / sd, np.inf, loc=mean, scale=sd)


PRIORS = {
    "gaussian_linear": [norm(0, 0.1**0.5)] * 10,
    "gaussian_linear_uniform": [uniform(-1, 2)] * 10,
    "gaussian_mixture": [uniform(-10, 20)] * 2,
    "hare_lynx": [half(1, 0.5), half(0.05, 0.05)] * 2
    + [lognorm(1, scale=10)] * 2
    + [lognorm(1, scale=np.exp(-1))] * 2,
    "influenza": [half(2, 1), half(0.4, 0.5), expon(scale=1 / 5)],
    "inverse_kinematics": [norm(0, sd) for sd in (0.25, 0.5, 0.5, 0.5)],
    "lotka_volterra": [lognorm(0.5, scale=np.exp(-0.125)), lognorm(0.5, scale=np.exp(-3))] * 2,
    "sir": [lognorm(0.5, scale=0.4), lognorm(0.2, scale=0.125)],
    "slcp": [uniform(-3, 6)] * 5,
    "slcp_distractors": [uniform(-3, 6)] * 5,
    "two_moons": [uniform(-1, 2)] * 2,
}


@pytest.mark.parametrize("name", PRIORS)
def test_priors_are_the_published_ones(name):
    """Each parameter passes a Kolmogorov-Smirnov test against its prior in the sources, and the log densities
    are theirs, added up."""
    model, priors = BENCHMARKS[name], PRIORS[name]
    theta = model.prior(5000, np.random.default_rng(12))["theta"]
    assert theta.shape[1] == len(priors)
    for i, prior in enumerate(priors):
        assert kstest(theta[:, i], prior.cdf).pvalue > 0.0005
    expected = sum(prior.logpdf(theta[:20, i]) for i, prior in enumerate(priors))
    np.testing.assert_allclose(model.log_prior(theta[:20]), expected, rtol=1e-9)


def test_the_prior_of_the_bernoulli_glm_likes_smooth_filters():
    """Its exponent is half of bias^2 / 2 plus the squares of second differences plus sqrt(i / 9) times the
    filter, written out here."""
    model = BENCHMARKS["bernoulli_glm"]
    theta = model.prior(20, np.random.default_rng(13))["theta"]
    padded = np.concatenate([np.zeros((20, 2)), theta[:, 1:]], axis=1)
    rough = padded[:, 2:] - 2 * padded[:, 1:-1] + padded[:, :-2] + np.sqrt(np.arange(9) / 9) * theta[:, 1:]
    expected = -(theta[:, 0] ** 2 / 2 + (rough**2).sum(axis=1)) / 2
    difference = model.log_prior(theta) - expected
    np.testing.assert_allclose(difference, difference[0])
