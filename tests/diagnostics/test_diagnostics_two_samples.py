"""C2ST, L-C2ST, MMD, energy score and log score, on distributions whose distance is known."""

import numpy as np
import pytest
from gaussian_posterior import gaussian
from scipy.stats import norm

from sbi_models.diagnostics import c2st, energy_score, local_c2st, log_score, mmd_squared
from sbi_models.errors import ConfigurationError, DataError


@pytest.mark.nightly_cases("random_forest")
@pytest.mark.parametrize("classifier", ["mlp", "random_forest"])
def test_c2st_of_one_distribution_is_a_half(classifier):
    """Two sets of draws of one Gaussian cannot be told apart: an accuracy within 0.06 of 0.5 on 500 each."""
    rng = np.random.default_rng(0)
    assert c2st(rng.normal(size=(500, 2)), rng.normal(size=(500, 2)), classifier, seed=1) == pytest.approx(
        0.5, abs=0.06
    )


@pytest.mark.nightly
@pytest.mark.parametrize("classifier", ["mlp", "random_forest"])
def test_c2st_comes_near_the_best_accuracy(classifier):
    """Of two unit Gaussians 2 sds apart the best classifier is right Phi(1) = 84 % of the time, and no one is
    more often."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(600, 1)), rng.normal(size=(600, 1)) + 2.0
    assert norm.cdf(1.0) - 0.05 < c2st(first, second, classifier) < norm.cdf(1.0) + 0.03


@pytest.mark.nightly
def test_c2st_does_not_depend_on_units_and_repeats_with_a_seed():
    """Scaling and moving all draws changes nothing but rounding; the same seed gives the same accuracy."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(100, 2)), 1.5 * rng.normal(size=(100, 2))
    accuracy = c2st(first, second, "random_forest", folds=2, seed=3)
    assert c2st(first, second, "random_forest", folds=2, seed=3) == accuracy
    moved = c2st(1024 * first + 2048, 1024 * second + 2048, "random_forest", folds=2, seed=3)
    assert moved == pytest.approx(accuracy, abs=0.02)


@pytest.mark.parametrize("function", [c2st, mmd_squared])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), "shapes"),
        (np.zeros((1, 2)), np.zeros((9, 2)), "at least"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), "finite"),
        (np.zeros(9), np.zeros(9), "shapes"),
    ],
)
def test_sets_that_do_not_fit_are_refused(function, first, second, message):
    """Sets of other dimensions, of one draw, or with NaN raise a DataError."""
    with pytest.raises(DataError, match=message):
        function(first, second)


def test_unknown_classifiers_are_refused():
    """A misspelt classifier raises a ConfigurationError that names the near one."""
    with pytest.raises(ConfigurationError, match="Did you mean 'random_forest'"):
        c2st(np.zeros((9, 1)), np.ones((9, 1)), "random_forrest")  # type: ignore[arg-type]


# Seconds: twenty forests are grown.
@pytest.mark.nightly
def test_local_c2st_finds_where_a_posterior_is_wrong():
    """Draws that are right for x < 0 and shifted by 1.5 sds for x > 0 are rejected at x = 1 and not at x =
    -1."""
    rng = np.random.default_rng(4)
    n, sd = 800, np.sqrt(0.2)

    def draws(x, number):
        return (
            0.8 * x[:, None, :] + 1.5 * sd * (x[:, None, :] > 0) + sd * rng.normal(size=(len(x), number, 1))
        )

    truth = rng.normal(size=(n, 1))
    x = truth + 0.5 * rng.normal(size=(n, 1))
    at = np.array([[-1.0], [1.0]])
    result = local_c2st(
        draws(x, 1), truth, x, draws(at, 400), at, classifier="random_forest", num_null=19, seed=5
    )
    assert result.p_values[1] == pytest.approx(1 / 20)
    assert result.p_values[0] > 0.1
    assert result.statistic[1] > 3 * result.statistic[0]
    assert result.null.shape == (19, 2)


@pytest.mark.nightly
def test_local_c2st_of_a_right_posterior_has_no_small_p_values():
    """For an exact posterior, of 30 observations no more than 6 have the smallest p there is, 1/11."""
    samples, truth = gaussian(6, n=200, draws=100, dim=1)
    x = samples.mean(axis=1)  # the posterior mean is sufficient
    result = local_c2st(samples, truth, x, samples[:30], x[:30], classifier="random_forest", num_null=10)
    assert np.sum(result.p_values < 0.1) <= 6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": np.zeros((9, 1))}, DataError, "data of 40 data sets"),
        (
            {"observed_samples": np.zeros((2, 5, 3))},
            DataError,
            r"observed_samples of shape \(n_observed, S, 2\)",
        ),
        ({"observed_data": np.zeros((2, 4))}, DataError, "of 1 numbers each"),
        ({"num_null": 0}, ConfigurationError, "num_null as a positive integer"),
    ],
)
def test_bad_local_tests_are_refused(change, error, message):
    """Data that do not go with the draws, other shapes, and no null classifiers are errors."""
    samples, truth = gaussian(7, n=40, draws=5)
    arguments = {
        "samples": samples,
        "truth": truth,
        "data": np.zeros((40, 1)),
        "observed_samples": samples[:2],
        "observed_data": np.zeros((2, 1)),
    }
    with pytest.raises(error, match=message):
        local_c2st(**{**arguments, **change}, classifier="random_forest")


def test_mmd_is_that_of_the_formula():
    """For unit Gaussians a shift m apart and h = 1, MMD^2 is 2 (1 - exp(-m^2 / 6)) / sqrt(3): met within
    0.003 by 1000 quantiles each."""
    quantiles = norm.ppf((np.arange(1000) + 0.5) / 1000)[:, None]
    for shift in (0.0, 1.0, 3.0):
        expected = 2 / np.sqrt(3) * (1 - np.exp(-(shift**2) / 6))
        assert mmd_squared(quantiles, quantiles + shift, bandwidth=1.0) == pytest.approx(expected, abs=0.003)


def test_mmd_has_no_bias():
    """Over 300 pairs of sets of 8 draws of one distribution, MMD^2 averages 0 within 3 standard errors, with
    values of both signs."""
    rng = np.random.default_rng(9)
    values = np.array(
        [mmd_squared(rng.normal(size=(8, 2)), rng.normal(size=(8, 2)), bandwidth=1.0) for _ in range(300)]
    )
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300)
    assert values.min() < 0 < values.max()


def test_mmd_refuses_a_bandwidth_that_is_none():
    """A bandwidth of 0 raises a ConfigurationError; equal draws, whose median distance is 0, give 0."""
    with pytest.raises(ConfigurationError, match="positive bandwidth"):
        mmd_squared(np.zeros((3, 1)), np.ones((3, 1)), bandwidth=0.0)
    assert mmd_squared(np.zeros((3, 1)), np.zeros((3, 1))) == 0.0


def test_the_energy_score_of_a_gaussian_is_that_of_the_formula():
    """For the quantiles of N(0, 1) and a truth y, CRPS = y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi), met
    within 0.003."""
    quantiles = norm.ppf((np.arange(1000) + 0.5) / 1000)
    truth = np.array([[-2.0], [0.0], [1.0]])
    expected = truth[:, 0] * (2 * norm.cdf(truth[:, 0]) - 1) + 2 * norm.pdf(truth[:, 0]) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(
        energy_score(np.tile(quantiles[:, None], (3, 1, 1)), truth, scaled=False), expected, atol=0.003
    )


def test_the_right_posterior_has_the_best_energy_score():
    """The exact posterior scores better than one too narrow, too wide, or shifted, and units do not matter
    when scaled."""
    exact = energy_score(*gaussian(11, n=400, draws=100)).mean()
    for flaw in ({"width": 0.4}, {"width": 2.0}, {"shift": 0.7}):
        assert energy_score(*gaussian(11, n=400, draws=100, **flaw)).mean() > exact
    samples, truth = gaussian(11, n=400, draws=100)
    assert energy_score(samples * [1.0, 1e6], truth * [1.0, 1e6]).mean() == pytest.approx(exact)


def test_the_log_score_has_its_error_and_a_paired_difference():
    """Mean and standard error are those of NumPy; against itself plus 0.1 nats the score is -0.1 and sure."""
    values = np.random.default_rng(12).normal(size=200)
    assert log_score(values) == pytest.approx((values.mean(), values.std(ddof=1) / np.sqrt(200)))
    paired = log_score(values, values + 0.1)
    assert paired.mean == pytest.approx(-0.1)
    assert paired.error < 1e-12


@pytest.mark.parametrize(
    ("values", "baseline", "message"),
    [
        ([1.0, -np.inf, np.nan], None, "-inf for data set 1"),
        ([1.0], None, "2 data sets or more"),
        ([1.0, 2.0], [1.0], r"baseline of shape \(2,\)"),
    ],
)
def test_bad_log_densities_are_refused(values, baseline, message):
    """A density of 0, one data set, or a baseline of other data sets raise a DataError."""
    with pytest.raises(DataError, match=message):
        log_score(values, baseline)
