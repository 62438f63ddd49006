"""Rank histograms, TARP, ranks with random ties, information, and posterior predictive checks."""

import numpy as np
import pytest
from gaussian_posterior import gaussian
from scipy.stats import chi2

from sbi_models.diagnostics import (
    information,
    predictive_check,
    random_ranks,
    rank_histogram,
    tarp,
    tarp_ranks,
    z_scores,
)
from sbi_models.diagnostics.metrics.calibration import uniformity_test
from sbi_models.diagnostics.metrics.coverage import joint_ranks
from sbi_models.diagnostics.metrics.pools import pooled
from sbi_models.errors import ConfigurationError, DataError

FLAWS = [{"width": 0.7}, {"width": 1.5}, {"shift": 0.4}]

# --- ranks


def test_ties_are_broken_evenly():
    """A truth that equals all 4 draws takes each of the 5 ranks a fifth of the time, within 5 standard errors
    of 5000."""
    ranks = random_ranks(np.ones((5000, 4, 1)), np.ones((5000, 1)), seed=1)
    assert np.all(np.abs(np.bincount(ranks[:, 0], minlength=5) - 1000) < 5 * np.sqrt(5000 * 0.2 * 0.8))
    np.testing.assert_array_equal(ranks, random_ranks(np.ones((5000, 4, 1)), np.ones((5000, 1)), seed=1))


def test_p_values_of_uniform_ranks_are_uniform_and_reach_far():
    """Over 1000 sets of uniform ranks, p < 0.05 in 3 to 7 %; ranks that are all low have p far below what was
    simulated."""
    rng = np.random.default_rng(2)
    _, p_values = uniformity_test((rng.integers(0, 200, (100, 1000)) + 0.5) / 200, 199)
    assert 0.03 <= np.mean(p_values < 0.05) <= 0.07
    assert uniformity_test(np.full((100, 1), 0.5 / 200), 199)[1] < 1e-50


# --- histograms of ranks


def test_histograms_count_every_data_set_in_its_bin():
    """Counts add up to the data sets, expectations too, and each rank is in the bin whose edges hold it."""
    samples, truth = gaussian(3, n=137, draws=99)
    result = rank_histogram(samples, truth, bins=7)
    assert result.counts.sum(axis=0).tolist() == [137, 137]
    assert result.expected.sum() == pytest.approx(137)
    fractions = (random_ranks(samples, truth) + 0.5) / 100
    np.testing.assert_array_equal(result.counts[:, 0], np.histogram(fractions[:, 0], result.edges)[0])


def test_p_values_of_exact_histograms_are_uniform():
    """Over 400 exact parameters, 2 to 9 % of p-values are below 0.05, by bins and by the band, and 95 % of
    counts are in their interval."""
    result = rank_histogram(*gaussian(4, n=200, draws=99, dim=400))
    assert 0.02 <= np.mean(result.p_values < 0.05) <= 0.09
    assert 0.02 <= np.mean(result.p_values_ecdf < 0.05) <= 0.09
    inside = (result.counts >= result.lower[:, None]) & (result.counts <= result.upper[:, None])
    assert 0.93 <= inside.mean() <= 0.98


@pytest.mark.parametrize("flaw", FLAWS, ids=str)
def test_flawed_histograms_are_rejected(flaw):
    """Too narrow, too wide and shifted posteriors have p < 0.001 with 400 data sets."""
    result = rank_histogram(*gaussian(5, n=400, **flaw))
    assert np.all(result.p_values < 1e-3)
    assert np.all(result.p_values_ecdf < 1e-3)


@pytest.mark.parametrize("bins", [1, 202, 2.5, True])
def test_impossible_bins_are_refused(bins):
    """Fewer than 2 bins, more than ranks, and no integers raise a ConfigurationError; NumPy integers will
    do."""
    with pytest.raises(ConfigurationError, match="bins as an integer from 2 to 201"):
        rank_histogram(*gaussian(6, n=30), bins=bins)
    assert rank_histogram(*gaussian(6, n=30), bins=np.int64(5)).counts.shape == (5, 2)


# --- TARP


@pytest.mark.parametrize("draws", [3, 200])
def test_tarp_of_an_exact_posterior_is_uniform(draws):
    """Over 200 exact problems, 1 to 10 % have p < 0.05, however few draws there are."""
    p_values = [tarp(*gaussian(seed, n=100, draws=draws, dim=3), seed=seed).p_value for seed in range(200)]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1


@pytest.mark.parametrize(("flaw", "sign"), [({"width": 0.6}, -1), ({"width": 1.6}, 1)], ids=str)
def test_tarp_tells_narrow_from_wide(flaw, sign):
    """Narrow posteriors have a negative area, wide ones a positive one, and both are rejected."""
    result = tarp(*gaussian(8, n=500, dim=3, **flaw))
    assert result.p_value < 1e-3
    assert np.sign(result.area) == sign


def test_tarp_with_references_that_know_the_data_rejects_the_prior():
    """Draws of the prior pass with random references, as Lemos et al. say, and fail with references that
    depend on the data."""
    rng = np.random.default_rng(9)
    truth = rng.normal(size=(500, 2))
    data, prior = truth + 0.3 * rng.normal(size=truth.shape), rng.normal(size=(500, 200, 2))
    assert tarp(prior, truth).p_value > 0.01
    assert tarp(prior, truth, data).p_value < 1e-3


def test_tarp_ranks_equal_a_loop():
    """The ranks are those of distances to the reference in units of the sd of the truth, one data set at a
    time, for parameters in units of 1, 50 and 1e-3."""
    units = np.array([1.0, 50.0, 1e-3])
    samples, truth = (values * units for values in gaussian(10, n=20, draws=30, dim=3))
    references = np.random.default_rng(10).normal(size=truth.shape) * units
    others = [np.delete(truth, i, axis=0).std(axis=0) for i in range(20)]
    expected = [
        np.sum(np.linalg.norm((draws - at) / sd, axis=1) < np.linalg.norm((true - at) / sd))
        for draws, true, at, sd in zip(samples, truth, references, others, strict=True)
    ]
    np.testing.assert_array_equal(tarp_ranks(samples, truth, references), expected)


def test_tarp_sees_a_small_parameter_beside_a_large_one():
    """An sd of a third of the right one is found (p < 1e-6) in the parameter whose unit is a thousandth of
    the other's, as it is where the units are equal."""
    samples, truth = gaussian(17, n=300, dim=2)
    mean = samples[..., :1].mean(axis=1, keepdims=True)
    samples[..., :1] = mean + (samples[..., :1] - mean) / 3
    for unit in (1.0, 1e-3):
        assert tarp(samples * [unit, 1.0], truth * [unit, 1.0]).p_value < 1e-6


@pytest.mark.parametrize(
    ("at", "area"), [((1.0,), 0.25), ((0.1, 9.0), -0.25), ((0.1,), -0.25), ((9.0,), -0.25)]
)
def test_the_area_is_a_mean_over_levels(at, area):
    """Truths with half of the draws nearer to the reference have 1/4, the mean of 1 - level above 1/2 and of
    level below; those that lie beyond all draws, now and then nearer and now and then farther, or always the
    same, have -1/4."""
    truth = np.resize(at, (100, 1))
    samples = np.tile(np.r_[np.full(100, 0.5), np.full(100, 2.0)][:, None], (100, 1, 1))
    assert tarp(samples, truth, np.zeros((100, 1))).area == pytest.approx(area, abs=0.01)


def test_references_that_do_not_fit_are_refused():
    """References of another shape raise a DataError."""
    with pytest.raises(DataError, match=r"references of shape \(30, 2\)"):
        tarp(*gaussian(11, n=30), references=np.zeros((1, 2)))


# --- whitening and information


@pytest.mark.parametrize("dim", [2, 8])
def test_whitened_distances_give_the_joint_ranks(dim):
    """The ranks of whitened distances are those of `joint_ranks`; errors and their expected squares are those
    of z-scores and Mahalanobis distances of each value of the pool from all others."""
    samples, truth = gaussian(12, n=50, draws=60, dim=dim)
    samples, truth = (
        values @ np.random.default_rng(12).normal(size=(dim, dim)) for values in (samples, truth)
    )
    single, joint = pooled(samples, truth, np.random.default_rng(0))
    np.testing.assert_allclose((joint.distance + 0.5) / 61, joint_ranks(samples, truth))
    pool = np.concatenate([samples, truth[:, None]], axis=1)
    of_each = np.stack([z_scores(np.delete(pool, k, axis=1), pool[:, k]) for k in range(61)])
    np.testing.assert_allclose(single.errors, z_scores(samples, truth) - of_each.mean(axis=0))
    np.testing.assert_allclose(single.second, of_each.var(axis=0))
    assert (single.errors**2).mean() == pytest.approx(single.second.mean(), rel=0.3)
    for i in range(5):
        lengths = []
        for k in range(61):
            others = np.delete(pool[i], k, axis=0)
            error = others.mean(axis=0) - pool[i, k]
            lengths.append(error @ np.linalg.inv(np.cov(others.T)) @ error)
        assert joint.second[i] == pytest.approx(np.mean(lengths), rel=0.05)
        assert joint.fourth[i] == pytest.approx(np.mean(np.square(lengths)))


def test_information_of_the_prior_is_chance():
    """Over 300 parameters that the draws know nothing of, 2 to 9 % have p < 0.05; of an exact posterior all
    are below 1e-6."""
    rng = np.random.default_rng(13)
    _, p_values = information(rng.normal(size=(100, 40, 300)), rng.normal(size=(100, 300)))
    assert 0.02 <= np.mean(p_values[:-1] < 0.05) <= 0.09
    assert np.all(information(*gaussian(13, n=100, dim=3))[1] < 1e-6)


def test_information_is_the_deviation_over_all_pairings():
    """The statistic is that of distances computed one by one, standardized by the moments over 4000 random
    pairings, within 5 %."""
    samples, truth = gaussian(14, n=30, draws=20, dim=1)
    at, true = (
        (np.mean(v[..., None] > samples.ravel(), axis=-1) + np.mean(v[..., None] >= samples.ravel(), axis=-1))
        / 4
        + (np.mean(v[..., None] > truth.ravel(), axis=-1) + np.mean(v[..., None] >= truth.ravel(), axis=-1))
        / 4
        for v in (samples[..., 0], truth[:, 0])
    )
    distance = np.abs(at[:, :, None] - true[None, None, :]).mean(axis=1)
    rng = np.random.default_rng(14)
    totals = [distance[np.arange(30), rng.permutation(30)].sum() for _ in range(4000)]
    gains, _ = information(samples, truth)
    assert gains[0] == pytest.approx((np.mean(totals) - np.trace(distance)) / np.std(totals), rel=0.05)


def test_information_of_a_constant_is_none():
    """A parameter of one value has statistic 0 and p = 1/2, and does not touch the joint test."""
    samples, truth = gaussian(15, n=60)
    zeros = np.zeros((60, 200, 1))
    gains, p_values = information(
        np.concatenate([samples, zeros], axis=2), np.concatenate([truth, zeros[:, 0]], axis=1)
    )
    assert (gains[2], p_values[2]) == (0.0, 0.5)
    assert gains[3] == pytest.approx(information(samples, truth)[0][2])


# --- posterior predictive checks


def test_right_predictions_have_uniform_p_values():
    """Data from the predictive distribution itself have p < 0.1 in about a tenth of 500 cases; from another
    one nearly always."""
    rng = np.random.default_rng(16)
    predictive = rng.normal(size=(500, 199, 10))
    check = predictive_check(predictive, rng.normal(size=(500, 10)))
    assert check.names == ("mean", "standard deviation", "smallest", "largest")
    assert np.all(np.abs(np.mean(check.p_values < 0.1, axis=0) - 0.1) < 0.05)
    assert np.mean(predictive_check(predictive, 3 + rng.normal(size=(500, 10))).p_values[:, 0] < 0.1) > 0.95


def test_p_values_are_shares_of_predictions():
    """With predictions 1 to 9 and a statistic of 9, p is 2 (1 + 1) / 10; in the middle it is 1."""
    predictive = np.arange(1.0, 10.0)[None, :, None]
    assert predictive_check(predictive, [[9.0]], {"value": lambda x: x[..., 0]}).p_values[
        0, 0
    ] == pytest.approx(0.4)
    assert predictive_check(predictive, [[5.0]], {"value": lambda x: x[..., 0]}).p_values[0, 0] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 4, 5)), np.zeros((3, 4))), r"got \(3, 4, 5\) and \(3, 4\)"),
        ((np.zeros((3, 4)), np.full(3, np.nan)), "finite observed"),
        ((np.zeros((3, 4)), np.zeros(3), {}), "at least one statistic"),
        ((np.zeros((3, 4)), np.zeros(3), {"all": np.mean}), "reduce the last axis"),
    ],
)
def test_bad_predictive_checks_are_refused(arguments, message):
    """Arrays that do not fit, NaN, no statistics, and statistics of another shape raise a DataError."""
    with pytest.raises(DataError, match=message):
        predictive_check(*arguments)


def test_the_chi_square_of_a_histogram_is_pearsons():
    """With ranks put in by hand, the p-value is that of chi-square with bins - 1 degrees of freedom."""
    samples = np.tile(np.arange(1.0, 4.0)[None, :, None], (40, 1, 1))
    truth = np.repeat([0.5, 1.5, 2.5, 3.5], [16, 8, 8, 8])[:, None]
    assert rank_histogram(samples, truth, bins=4).p_values[0] == pytest.approx(chi2.sf((36 + 3 * 4) / 10, 3))
