"""Ranks, the simultaneous band, log gamma and the expected calibration error."""

import numpy as np
import pytest
from gaussian_posterior import gaussian
from scipy.stats import binom

from sbi_models.diagnostics import calibration_error, fractional_ranks, log_gamma, simultaneous_band
from sbi_models.diagnostics.metrics.calibration import (
    critical_gamma,
    ecdf_counts,
    evaluation_points,
    local_gamma,
    log_gamma_of_ranks,
)
from sbi_models.errors import ConfigurationError, DataError

# --- ranks


def test_each_slot_between_draws_has_its_midpoint_as_rank():
    """With S draws, a truth in slot k of S + 1 has rank (k + 1/2) / (S + 1), in any order of the draws."""
    samples = np.tile(np.array([3.0, 1.0, 2.0])[None, :, None], (4, 1, 1))
    ranks = fractional_ranks(samples, np.array([[0.5], [1.5], [2.5], [3.5]]))
    np.testing.assert_allclose(ranks[:, 0], (np.arange(4) + 0.5) / 4)


def test_ties_count_half():
    """Draws equal to the truth count half as below it, so a truth equal to all draws lies in the middle."""
    assert fractional_ranks(np.full((1, 8, 1), 2.0), [[2.0]])[0, 0] == 0.5
    assert fractional_ranks([[[1.0], [2.0], [2.0], [3.0]]], [[2.0]])[0, 0] == pytest.approx(
        (1 + (2 + 1) / 2) / 5
    )


def test_ranks_mirror_when_everything_changes_sign():
    """Negating draws and truth turns rank u into 1 - u, ties included: no direction is favoured."""
    rng = np.random.default_rng(0)
    samples, truth = rng.integers(0, 5, (50, 20, 2)), rng.integers(0, 5, (50, 2))
    np.testing.assert_allclose(fractional_ranks(-samples, -truth), 1.0 - fractional_ranks(samples, truth))


def test_ranks_equal_a_loop():
    """The vectorised ranks are those of a plain loop over data sets and parameters."""
    samples, truth = gaussian(1, n=20, draws=30)
    expected = [[(np.sum(samples[i, :, j] < truth[i, j]) + 0.5) / 31 for j in range(2)] for i in range(20)]
    np.testing.assert_allclose(fractional_ranks(samples, truth), expected)


def test_ranks_of_an_exact_posterior_are_uniform_on_the_slots():
    """For an exact posterior and 4 draws, each of the 5 slots holds a fifth of 5000 truths, within 5 standard
    errors."""
    samples, truth = gaussian(2, n=5000, draws=4, dim=1)
    slots = np.bincount((fractional_ranks(samples, truth)[:, 0] * 5).astype(int), minlength=5)
    assert np.all(np.abs(slots - 1000) < 5 * np.sqrt(5000 * 0.2 * 0.8))


# --- the band


@pytest.mark.parametrize(("n", "num_draws"), [(100, 1000), (100, 9), (30, 200), (1500, 60)])
def test_the_band_holds_for_whole_sets_of_ranks(n, num_draws):
    """About 95 % of 1000 sets of uniform ranks lie inside the 95 % band at all points at once."""
    rng = np.random.default_rng(3)
    ranks = (rng.integers(0, num_draws + 1, (n, 1000)) + 0.5) / (num_draws + 1)
    band = simultaneous_band(n, num_draws)
    ecdf = ecdf_counts(ranks, band.z) / n
    inside = np.all((ecdf >= band.lower[:, None] - 1e-12) & (ecdf <= band.upper[:, None] + 1e-12), axis=0)
    assert 0.93 <= inside.mean() <= 0.975


@pytest.mark.parametrize("num_draws", [100, 1000])
def test_the_band_of_100_ranks_holds_as_often_as_it_says(num_draws):
    """Of 1000 sets of 100 uniform ranks, 93 to 97 % lie inside the 95 % band at all points at once."""
    rng = np.random.default_rng(12)
    ranks = (rng.integers(0, num_draws + 1, (100, 1000)) + 0.5) / (num_draws + 1)
    assert 0.93 <= np.mean(log_gamma_of_ranks(ranks, num_draws) >= 0.0) <= 0.97


def test_a_pointwise_band_would_be_too_narrow():
    """The simultaneous band is wider than the pointwise one in the middle, by more than a third."""
    band = simultaneous_band(100, 1000)
    middle = np.argmin(np.abs(band.z - 0.5))
    pointwise = np.diff(binom.ppf([0.025, 0.975], 100, band.z[middle])) / 100
    assert band.upper[middle] - band.lower[middle] > 1.33 * pointwise


def test_log_gamma_is_below_zero_exactly_outside_the_band():
    """For each of 2000 sets of uniform ranks, log gamma < 0 if and only if the ECDF leaves the band."""
    rng = np.random.default_rng(4)
    ranks = (rng.integers(0, 101, (60, 2000)) + 0.5) / 101
    band = simultaneous_band(60, 100)
    ecdf = ecdf_counts(ranks, band.z) / 60
    outside = np.any((ecdf < band.lower[:, None] - 1e-12) | (ecdf > band.upper[:, None] + 1e-12), axis=0)
    statistic = log_gamma_of_ranks(ranks, 100)
    clear = np.abs(statistic) > 1e-9  # where both sides are equal, rounding decides
    assert 0 < outside.sum() < 200
    np.testing.assert_array_equal(statistic[clear] < 0.0, outside[clear])


def test_local_gamma_is_the_smallest_two_sided_binomial_tail():
    """Looked up in a table or computed directly, gamma is 2 min over points of the smaller binomial tail of
    the counts."""
    z = np.array([0.2, 0.5, 0.9])
    counts = np.array([[2, 5, 9], [0, 10, 10], [4, 4, 8]] * 5)
    expected = 2 * np.min(np.minimum(binom.cdf(counts, 10, z), binom.sf(counts - 1, 10, z)), axis=1)
    np.testing.assert_allclose(local_gamma(counts, 10, z), expected)  # 15 rows: table
    np.testing.assert_allclose(local_gamma(counts[:3], 10, z), expected[:3])  # 3 rows: direct


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_band_edges_are_binomial_quantiles(level):
    """Lower and upper edges are SciPy's binomial quantiles at half the critical gamma and its complement."""
    band, half = simultaneous_band(40, 70, level), critical_gamma(40, 70, level) / 2
    np.testing.assert_allclose(band.lower, binom.ppf(half, 40, band.z) / 40)
    np.testing.assert_allclose(band.upper, binom.ppf(1 - half, 40, band.z) / 40)


@pytest.mark.parametrize("num_draws", [1, 5, 1000, 100_000])
def test_evaluation_points_are_edges_of_rank_slots(num_draws):
    """The points are multiples of 1 / (S + 1) inside (0, 1), at most 500, with the first and the last edge
    among them."""
    slots = evaluation_points(10_000, num_draws) * (num_draws + 1)
    np.testing.assert_allclose(slots, np.round(slots), atol=1e-6)
    assert slots[0] == pytest.approx(1)
    assert slots[-1] == pytest.approx(num_draws)
    assert len(slots) == min(num_draws, 500)


# --- log gamma


def test_an_exact_posterior_is_rarely_rejected():
    """For an exact posterior, log gamma < 0 in about 5 % of 400 independent parameters."""
    assert 0.02 <= np.mean(log_gamma(*gaussian(5, n=100, draws=99, dim=400)) < 0.0) <= 0.085


@pytest.mark.parametrize("flaw", [{"width": 0.8}, {"width": 1.3}, {"shift": 0.4}, {"shift": -0.4}], ids=str)
def test_a_wrong_posterior_is_rejected(flaw):
    """Too narrow, too wide, or shifted either way, log gamma < 0 for every parameter with 500 data sets."""
    assert np.all(log_gamma(*gaussian(6, n=500, **flaw)) < 0.0)


def test_log_gamma_is_finite_for_the_worst_ranks():
    """A truth always below all of the draws gives a very low but finite log gamma, without a warning."""
    value = log_gamma(np.ones((1000, 1000, 1)), np.zeros((1000, 1)))
    assert np.isfinite(value[0])
    assert value[0] < -500


def test_log_gamma_rejects_more_at_a_lower_level():
    """A 50 % band rejects more readily than a 99 % band."""
    problem = gaussian(7)
    assert np.all(log_gamma(*problem, level=0.5) < log_gamma(*problem, level=0.99))


@pytest.mark.parametrize("level", [0.0, 1.0, 95, "95 %"])
def test_levels_outside_0_to_1_are_refused(level):
    """A level that is no probability raises a ConfigurationError that shows one."""
    with pytest.raises(ConfigurationError, match=r"between 0 and 1.*0\.95"):
        log_gamma(*gaussian(8, n=10), level=level)


# --- expected calibration error


def test_calibration_error_of_an_exact_posterior_is_what_chance_leaves():
    """Over 100 exact parameters, the error averages 0.313 / sqrt(n), the mean absolute deviation of binomial
    shares."""
    assert calibration_error(*gaussian(9, n=400, draws=199, dim=100)).mean() == pytest.approx(
        0.313 / 20, rel=0.2
    )


def test_calibration_error_of_a_posterior_that_never_covers():
    """If no interval ever covers, the error is the mean of the 20 levels, one half."""
    samples = np.tile(np.linspace(1, 2, 1000)[None, :, None], (50, 1, 1))
    assert calibration_error(samples, np.zeros((50, 1)))[0] == pytest.approx(0.5)


def test_calibration_error_of_point_coverage():
    """If all intervals cover, the error is the mean of 1 - level, one half, too."""
    samples = np.tile(np.linspace(-1, 1, 1000)[None, :, None], (50, 1, 1))
    assert calibration_error(samples, np.zeros((50, 1)))[0] == pytest.approx(0.5)


def test_calibration_error_of_a_known_flaw():
    """Draws of half the right width give the error computed from the normal distribution."""
    from scipy.stats import norm  # noqa: PLC0415 - only here

    levels = np.linspace(0.005, 0.995, 20)
    covered = 2 * norm.cdf(0.5 * norm.ppf((1 + levels) / 2)) - 1
    error = calibration_error(*gaussian(10, n=4000, draws=400, width=0.5))
    np.testing.assert_allclose(error, np.mean(levels - covered), atol=0.02)


def test_one_data_set_is_too_few():
    """Calibration of a single data set raises a DataError that says how many are needed."""
    with pytest.raises(DataError, match="at least 2 data set"):
        calibration_error(*gaussian(11, n=1))
