"""Marginal and joint coverage."""

import numpy as np
import pytest
from gaussian_posterior import gaussian
from scipy.stats import beta, chi2, norm

from sbi_models.diagnostics import joint_coverage, joint_ranks, log_gamma, marginal_coverage
from sbi_models.errors import ConfigurationError, DataError


@pytest.mark.parametrize("draws", [20, 99])
def test_default_levels_equal_intervals_between_order_statistics(draws):
    """At level (S + 1 - 2j) / (S + 1), coverage is the share of truths between the j-th smallest and j-th
    largest draw."""
    samples, truth = gaussian(0, n=200, draws=draws, width=0.8)
    ordered = np.sort(samples, axis=1)
    result = marginal_coverage(samples, truth)
    js = np.arange(draws // 2, 0, -1)
    np.testing.assert_allclose(result.levels, (draws + 1 - 2 * js) / (draws + 1))
    for level_row, j in zip(result.observed, js, strict=True):
        inside = (ordered[:, j - 1] < truth) & (truth < ordered[:, draws - j])
        np.testing.assert_allclose(level_row, inside.mean(axis=0))


def test_given_levels_agree_with_quantile_intervals():
    """At levels of the caller, coverage agrees with np.quantile intervals up to the grain of 1000 draws."""
    samples, truth = gaussian(1, n=500, draws=1000)
    levels = np.array([0.1, 0.5, 0.8, 0.95])
    lower, upper = (
        np.quantile(samples, (1 - levels) / 2, axis=1),
        np.quantile(samples, (1 + levels) / 2, axis=1),
    )
    brute = np.mean((lower <= truth) & (truth <= upper), axis=1)
    np.testing.assert_allclose(marginal_coverage(samples, truth, levels=levels).observed, brute, atol=0.0041)


@pytest.mark.parametrize(("width", "sign"), [(0.8, -1), (1.3, 1)])
def test_a_wrong_width_leaves_the_diagonal_on_its_side(width, sign):
    """Draws of the wrong width cover as the normal distribution says: below the line if too narrow, above if
    too wide."""
    samples, truth = gaussian(2, n=4000, width=width)
    result = marginal_coverage(samples, truth, levels=[0.5, 0.8])
    expected = 2 * norm.cdf(width * norm.ppf((1 + result.levels) / 2)) - 1
    np.testing.assert_allclose(result.observed, np.stack([expected] * 2, axis=1), atol=0.03)
    beyond = result.lower > result.levels[:, None] if sign > 0 else result.upper < result.levels[:, None]
    assert beyond.all()


def test_the_band_is_a_beta_interval_around_the_observed_share():
    """After c of n data sets covered, the band is the central interval of Beta(c + 1, n - c + 1)."""
    samples, truth = gaussian(3, n=50)
    result = marginal_coverage(samples, truth, levels=[0.3, 0.9], band=0.8)
    covered = np.round(result.observed * 50)
    np.testing.assert_allclose(result.lower, beta.ppf(0.1, covered + 1, 51 - covered))
    np.testing.assert_allclose(result.upper, beta.ppf(0.9, covered + 1, 51 - covered))


def test_pointwise_bands_hold_the_diagonal_at_their_level():
    """Over 400 exact parameters, the 95 % band at one level contains that level about 95 % of the time."""
    result = marginal_coverage(*gaussian(4, n=100, draws=99, dim=400), levels=[0.5])
    assert 0.91 <= np.mean((result.lower <= 0.5) & (result.upper >= 0.5)) <= 0.98


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_joint_ranks_of_an_exact_posterior_are_uniform(dim):
    """For an exact posterior the joint rank is uniform even with few draws: each of 8 slots holds its share
    of 4000 truths."""
    draws = 15
    ranks = joint_ranks(*gaussian(5, n=4000, draws=draws, dim=dim))
    slots = np.bincount((ranks * 8).astype(int), minlength=8)
    assert np.all(np.abs(slots - 500) < 4.5 * np.sqrt(4000 / 8 * 7 / 8))


def test_joint_ranks_are_levels_of_the_ellipsoid():
    """With many draws from a correlated Gaussian, the rank is the chi-square probability of the squared
    Mahalanobis distance."""
    rng = np.random.default_rng(6)
    root = np.array([[1.0, 0.0], [0.9, 0.1]])
    truth = np.array([[0.5, 0.5], [0.5, 0.3], [-1.0, -0.8]])
    samples = rng.normal(size=(3, 40_000, 2)) @ root.T
    distance = np.sum(np.linalg.solve(root, truth.T) ** 2, axis=0)
    np.testing.assert_allclose(joint_ranks(samples, truth), chi2.cdf(distance, 2), atol=0.015)


def test_joint_ranks_see_a_wrong_correlation_that_marginals_miss():
    """Draws with right marginals but without the posterior's correlation pass marginally and fail jointly."""
    rng = np.random.default_rng(7)
    truth = rng.multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], size=2000)
    samples = rng.normal(size=(2000, 100, 2))
    assert np.all(log_gamma(samples, truth) > 0.0)
    joint = joint_coverage(samples, truth, levels=[0.5, 0.9])
    expected = chi2.cdf(
        chi2.ppf(joint.levels, 2) / 1.95, 1
    )  # nearly all the variance, 1.95, lies along one axis
    np.testing.assert_allclose(joint.observed[:, 0], expected, atol=0.03)
    assert joint.lower[0, 0] > 0.5
    assert joint.upper[1, 0] < 0.9


@pytest.mark.parametrize("width", [0.7, 1.4])
def test_joint_coverage_of_wrong_widths(width):
    """Too narrow draws cover jointly less than stated, too wide ones more, by the amount of the chi-square
    distribution."""
    result = joint_coverage(*gaussian(8, n=4000, dim=3, width=width), levels=[0.5, 0.8])
    expected = chi2.cdf(width**2 * chi2.ppf(result.levels, 3), 3)
    np.testing.assert_allclose(result.observed[:, 0], expected, atol=0.03)


def test_joint_ranks_do_not_depend_on_units():
    """Measuring parameters in units that differ by 18 orders of magnitude changes no joint rank."""
    samples, truth = gaussian(9, n=50, dim=3)
    units = np.array([1e-9, 1.0, 1e9])
    np.testing.assert_allclose(joint_ranks(samples * units, truth * units), joint_ranks(samples, truth))


def test_constant_and_repeated_parameters_do_no_harm():
    """A constant parameter and a copy of another leave joint ranks as they are."""
    samples, truth = gaussian(10, n=50, dim=2)
    more = np.concatenate([samples, np.full((50, 200, 1), 0.1), samples[..., :1]], axis=2)
    more_truth = np.concatenate([truth, np.full((50, 1), 0.1), truth[:, :1]], axis=1)
    # the copy doubles no information, but rounding may swap draws at nearly the same distance
    np.testing.assert_allclose(joint_ranks(more, more_truth), joint_ranks(samples, truth), atol=0.011)


def test_a_truth_off_a_constant_parameter_is_outside_every_region():
    """If all draws agree on a parameter and the truth differs, the truth is farther than every draw."""
    samples, truth = gaussian(11, n=20, dim=2)
    samples[..., 1] = 3.0
    assert np.all(joint_ranks(samples, truth) > 0.99)


def test_joint_ranks_do_not_depend_on_chunking():
    """Data sets computed in chunks have the ranks they have alone."""
    samples, truth = gaussian(12, n=30, draws=9000, dim=20)  # more than one chunk
    alone = [joint_ranks(samples[i : i + 1], truth[i : i + 1])[0] for i in (0, 15, 29)]
    np.testing.assert_allclose(joint_ranks(samples, truth)[[0, 15, 29]], alone)


def test_joint_ranks_need_more_draws_than_dimensions():
    """With dim + 1 draws or fewer, all points of the pool are equally far, and a DataError says what is
    needed."""
    with pytest.raises(DataError, match=r"more than dim \+ 1 = 4 draws.*got 4"):
        joint_ranks(*gaussian(13, draws=4, dim=3))


@pytest.mark.parametrize("levels", [[0.0, 0.5], [1.0], [], [[0.5]], [50]])
def test_bad_levels_are_refused(levels):
    """Levels that are no probabilities, or no list, raise a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="strictly between 0 and 1"):
        marginal_coverage(*gaussian(14, n=10), levels=levels)
