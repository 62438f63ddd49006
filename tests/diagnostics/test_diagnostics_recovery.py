"""Point estimates, NRMSE, z-scores and contraction."""

import numpy as np
import pytest
from gaussian_posterior import gaussian

from sbi_models.diagnostics import (
    central_interval,
    nrmse,
    pearson_r,
    point_estimate,
    posterior_contraction,
    z_scores,
)
from sbi_models.errors import ConfigurationError, DataError

# --- recovery


def test_mean_and_median_differ_on_skewed_draws():
    """Draws 0, 0, 3 have mean 1 and median 0."""
    samples = np.array([[[0.0], [0.0], [3.0]]])
    assert point_estimate(samples)[0, 0] == 1.0
    assert point_estimate(samples, "median")[0, 0] == 0.0


def test_an_unknown_estimate_is_refused_with_a_suggestion():
    """A misspelt estimate raises a ConfigurationError that names the near one."""
    with pytest.raises(ConfigurationError, match="Did you mean 'median'"):
        point_estimate(np.zeros((2, 3, 1)), "medain")  # type: ignore[arg-type]


def test_the_central_interval_cuts_equal_tails():
    """Of the draws 0..1000, the 95 % interval is 25 to 975."""
    lower, upper = central_interval(np.arange(1001.0)[None, ::-1, None])
    assert (lower[0, 0], upper[0, 0]) == (pytest.approx(25), pytest.approx(975))


def test_pearson_r_is_numpys():
    """r equals np.corrcoef for each parameter."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 3))
    estimate = truth + rng.normal(size=(40, 3))
    np.testing.assert_allclose(
        pearson_r(estimate, truth), [np.corrcoef(estimate[:, j], truth[:, j])[0, 1] for j in range(3)]
    )


def test_pearson_r_of_a_constant_is_not_defined():
    """A constant parameter has r = NaN, without a warning."""
    truth = np.stack([np.full(9, 0.1), np.arange(9.0)], axis=1)
    r = pearson_r(truth + np.array([0.0, 1.0]), truth)
    assert np.isnan(r[0])
    assert r[1] == pytest.approx(1.0)


def test_nrmse_of_prior_draws_is_one():
    """Draws from the prior, which ignore the data, score 1."""
    rng = np.random.default_rng(1)
    truth = rng.gamma(2.0, size=(8000, 2))
    np.testing.assert_allclose(nrmse(rng.gamma(2.0, size=(8000, 200, 2)), truth), 1.0, atol=0.05)


def test_nrmse_is_exactly_one_when_each_posterior_is_the_set_of_truths():
    """If the draws of every data set are all the true values, numerator and denominator are the same
    number."""
    truth = np.random.default_rng(2).normal(size=(50, 2))
    np.testing.assert_allclose(nrmse(np.tile(truth, (50, 1, 1)), truth), 1.0)


def test_nrmse_of_perfect_draws_is_zero():
    """Draws equal to the truth score 0."""
    truth = np.random.default_rng(3).normal(size=(50, 2))
    np.testing.assert_array_equal(nrmse(np.repeat(truth[:, None], 10, axis=1), truth), 0.0)


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0])
def test_nrmse_of_an_exact_gaussian_posterior(noise):
    """An exact Gaussian posterior scores posterior sd over prior sd."""
    expected = np.sqrt(noise**2 / (1 + noise**2))
    np.testing.assert_allclose(nrmse(*gaussian(4, n=4000, noise=noise)), expected, rtol=0.05)


def test_nrmse_equals_a_loop():
    """The closed-form denominator is the root mean squared distance of the truth from all the truths."""
    samples, truth = gaussian(5, n=30, draws=40)
    numerator = [
        [np.sqrt(np.mean((samples[i, :, j] - truth[i, j]) ** 2)) for j in range(2)] for i in range(30)
    ]
    denominator = [[np.sqrt(np.mean((truth[:, j] - truth[i, j]) ** 2)) for j in range(2)] for i in range(30)]
    np.testing.assert_allclose(
        nrmse(samples, truth), np.median(numerator, axis=0) / np.median(denominator, axis=0)
    )


def test_nrmse_of_a_constant_parameter_is_not_defined():
    """Where the prior makes no error, NRMSE is NaN, without a warning; other parameters are untouched."""
    samples, truth = gaussian(6)
    expected = nrmse(samples, truth)[1]
    truth[:, 0] = 0.1
    result = nrmse(samples, truth)
    assert np.isnan(result[0])
    assert result[1] == expected


# --- contraction


def test_contraction_of_known_variances():
    """Truths of variance 4 and draws of variance 1 contract by 3/4."""
    truth = np.array([[-2.0], [0.0], [2.0]])  # variance 4 with ddof = 1
    samples = np.tile(np.array([-1.0, 0.0, 1.0])[None, :, None], (3, 1, 1))  # variance 1
    np.testing.assert_allclose(posterior_contraction(samples, truth), 0.75)


def test_a_given_prior_variance_is_used():
    """The caller's prior variance replaces that of the truths, and one data set is then enough."""
    samples = np.array([[[-1.0], [0.0], [1.0]]])
    assert posterior_contraction(samples, [[5.0]], prior_variance=[10.0])[0, 0] == pytest.approx(0.9)


def test_a_posterior_wider_than_the_prior_contracts_below_zero():
    """Contraction is not clipped: twice the prior variance gives -1."""
    samples = np.array([[[-1.0], [0.0], [1.0]]])
    assert posterior_contraction(samples, [[0.0]], prior_variance=0.5)[0, 0] == pytest.approx(-1.0)


def test_contraction_of_a_constant_parameter_is_not_defined():
    """Prior variance 0 gives NaN, even for constants that are not exact in binary, and no warning."""
    truth = np.stack([np.full(7, 0.1), np.arange(7.0)], axis=1)
    samples = np.random.default_rng(7).normal(size=(7, 50, 2))
    result = posterior_contraction(samples, truth)
    assert np.all(np.isnan(result[:, 0]))
    assert np.all(np.isfinite(result[:, 1]))


def test_z_scores_are_distances_in_posterior_standard_deviations():
    """Draws of mean 1 and sd (ddof 1) 1 and a truth of 3 give z = -2."""
    assert z_scores([[[0.0], [1.0], [2.0]]], [[3.0]])[0, 0] == pytest.approx(-2.0)


def test_z_scores_of_an_exact_posterior_are_standard_normal():
    """Over 4000 exact data sets z has mean 0 and variance 1, and 1/width^2 for draws of the wrong width."""
    z = z_scores(*gaussian(8, n=4000, dim=1))
    assert z.mean() == pytest.approx(0.0, abs=0.06)
    assert z.var() == pytest.approx(1.0, abs=0.1)
    assert z_scores(*gaussian(8, n=4000, dim=1, width=0.5)).var() == pytest.approx(4.0, abs=0.4)


def test_z_scores_of_certain_posteriors():
    """Equal draws give 0 if they hit the truth and a signed infinity if they miss, without a warning."""
    samples = np.full((3, 1000, 1), 0.1)  # whose mean is not quite 0.1
    np.testing.assert_array_equal(z_scores(samples, [[0.1], [0.2], [0.0]])[:, 0], [0.0, -np.inf, np.inf])


@pytest.mark.parametrize(
    ("variance", "message"),
    [([1.0, 1.0, 1.0], "shape"), ([-1.0, 1.0], "0 or more"), ([np.nan, 1.0], "finite prior_variance")],
)
def test_bad_prior_variances_are_refused(variance, message):
    """A prior variance of the wrong shape, negative, or NaN raises a DataError."""
    with pytest.raises(DataError, match=message):
        posterior_contraction(*gaussian(9, n=5), prior_variance=variance)


def test_one_draw_has_no_standard_deviation():
    """A single draw raises a DataError that says how many are needed."""
    with pytest.raises(DataError, match="at least 2 posterior draw"):
        z_scores(*gaussian(10, n=5, draws=1))
