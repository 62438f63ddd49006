"""Edges of metrics: outliers, ties, chunks, columns that are wrong beside right ones, and defaults."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import norm

from sbi_models.diagnostics.judging import _prior_draws
from sbi_models.diagnostics.metrics import lc2st, pools
from sbi_models.diagnostics.metrics.coverage import joint_ranks
from sbi_models.diagnostics.metrics.effects import bias_in_sds, joint_bias_in_sds, width_factor
from sbi_models.diagnostics.metrics.importance import pareto_smoothed
from sbi_models.diagnostics.metrics.information import _distances
from sbi_models.diagnostics.metrics.lc2st import local_c2st
from sbi_models.diagnostics.metrics.pools import _gross, pooled
from sbi_models.diagnostics.metrics.recovery import point_estimate
from sbi_models.diagnostics.metrics.tarp import _others, _spread_of_others
from sbi_models.diagnostics.verdict_tests import VerdictTests, _dead
from sbi_models.errors import DataError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- TARP and ranks


@pytest.mark.parametrize("outlier", [1.0, 1e3, 1e6])
def test_distances_are_in_sds_of_the_other_true_values(outlier):
    """By leaving each data set out in turn, also one that is a million sds from all others."""
    true = normal(20, 2, seed=1)
    true[3, 0] += outlier
    expected = [np.delete(true, i, axis=0).std(axis=0) for i in range(20)]
    np.testing.assert_allclose(_spread_of_others(true), expected, rtol=1e-3)


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_the_reference_of_a_data_set_is_another_one_along_one_cycle(n):
    """Going from each to its reference comes back after all n data sets, and not before."""
    others, place, seen = _others(n, np.random.default_rng(1)), 0, []
    for _ in range(n):
        place = others[place]
        seen.append(place)
    assert sorted(seen) == list(range(n))
    assert place == 0


def test_places_among_ties_are_those_of_seed_0_by_default():
    """Where all draws are tied, the seed decides alone."""
    draws, true = np.round(normal(30, 20, 2, seed=1)), np.round(normal(30, 2, seed=2))
    draws[:] = draws[:, :1] * np.array([1.0, -1.0] * 10)[:, None]
    assert np.array_equal(joint_ranks(draws, true), joint_ranks(draws, true, seed=0))
    assert not np.array_equal(joint_ranks(draws, true), joint_ranks(draws, true, seed=1))


# --- accuracy


@pytest.mark.parametrize("shape", [(5, 3), (5, 0, 2), (5, 3, 2, 1)])
def test_draws_of_another_shape_are_refused(shape):
    """Both without an axis of parameters, and with no draw."""
    with pytest.raises(DataError, match="with a draw or more"):
        point_estimate(np.zeros(shape))


def test_distances_of_very_many_draws_are_those_of_all_at_once():
    """Chunks of data sets together hold every row: 101 data sets of 200 draws are more than one chunk."""
    draws, truth = normal(101, 200, 2, seed=1), normal(101, 2, seed=2)
    found = _distances(draws, truth)
    assert found.shape == (101, 101)
    for row in (0, 50, 98, 99, 100):
        np.testing.assert_allclose(found[row], cdist(draws[row], truth).mean(axis=0))


def test_the_interval_of_a_bias_has_a_level_of_95_percent_by_default():
    """Of n errors of variance at most 1 it is 1.96 / sqrt(n) on both sides."""
    z = 0.5 * normal(50, 1, seed=1)
    found = bias_in_sds(z)
    half = norm.ppf(0.975) / np.sqrt(50)
    assert found.high - found.value == pytest.approx([half])
    assert found.value - found.low == pytest.approx([half])


def test_the_interval_of_a_width_lies_on_both_sides_of_it():
    """Of n normal errors it is the sd times exp(-+1.96 sqrt(2 / n) / 2), the law of the log of a variance."""
    z = 1.5 * normal(4_000, 1, seed=1)
    found = width_factor(z, np.ones_like(z), 3 * np.ones_like(z))
    half = norm.ppf(0.975) * np.sqrt(2 / 4_000) / 2
    assert found.value == pytest.approx(z.std(axis=0, ddof=1))
    assert np.log(found.high / found.value) == pytest.approx([half], rel=0.1)
    assert np.log(found.value / found.low) == pytest.approx([half], rel=0.1)


def test_a_joint_bias_that_is_smaller_than_chance_makes_it_is_zero():
    """Errors that sum to zero have no bias, and its interval begins, and ends, at 0."""
    errors = np.round(4 * normal(40, 3, seed=1)) / 4
    found = joint_bias_in_sds(np.concatenate([errors, -errors]), 3)
    assert [float(part) for part in found] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("bias", [3.0, 1e3, 1e4, 1e6, 1e150])
def test_the_interval_of_any_large_joint_bias_is_that_of_a_normal_law(bias):
    """The length of the mean of n errors of width 1 in d parameters has a standard error of 1 / sqrt(n)."""
    errors = normal(400, 2, seed=1)
    errors = (errors - errors.mean(axis=0)) / errors.std(axis=0, ddof=1) + [bias, 0.0]
    found = joint_bias_in_sds(errors, 2)
    half = norm.ppf(0.975) / 20
    assert found.value == pytest.approx(bias, rel=1e-3)
    assert float(found.low) == pytest.approx(bias - half, rel=1e-3)
    assert float(found.high) == pytest.approx(bias + half, rel=1e-3)


def test_weights_that_differ_in_their_last_digit_are_equal():
    """Nothing weighs more than what is common: the shape of their tail is 0, and not unknown."""
    log_weights = np.full((1, 200), -(2.0**-52))
    log_weights[0, :2] = 0.0
    smoothed = pareto_smoothed(log_weights)
    assert smoothed.pareto_k.tolist() == [0.0]
    np.testing.assert_allclose(np.exp(smoothed.log_weights), 1 / 200)


# --- two samples


def test_local_p_values_are_shares_of_the_null_hypothesis_at_each_observation(monkeypatch):
    """Of each of three observations by itself: (1 + number as sure) / (1 + number of trials)."""
    sureness = iter([[0.2, 0.5, 0.9], [0.1, 0.6, 0.9], [0.3, 0.1, 0.0], [0.2, 0.1, 0.0], [0.1, 0.1, 0.0]])
    monkeypatch.setattr(lc2st, "_sureness", lambda *_: np.array(next(sureness)))
    found = local_c2st(
        normal(20, 5, 2), normal(20, 2), normal(20, 1), normal(3, 5, 2), normal(3, 1), num_null=4
    )
    assert found.p_values.tolist() == [3 / 5, 2 / 5, 2 / 5]
    assert found.null.shape == (4, 3)


# --- pools


def test_what_is_out_of_range_is_counted_for_each_parameter():
    """Nine of 100 truths are too many where one is expected, whatever is expected of another parameter."""
    far = np.zeros((100, 2), dtype=bool)
    far[:10, 0], far[:10, 1] = True, True
    expected = np.stack([np.full(100, 0.01), np.full(100, 0.5)], axis=1)
    assert _gross(far, expected).tolist() == [True, False]


def test_a_wrong_parameter_leaves_the_errors_of_others_alone():
    """Those of a right one are what they are without the wrong one, before it or after."""
    draws, truth = normal(60, 30, 3, seed=1), normal(60, 3, seed=2)
    truth[:, 1] += 1e3
    found, _ = pooled(draws, truth, np.random.default_rng(3))
    for j in range(3):
        alone, _ = pooled(draws[..., j : j + 1], truth[:, j : j + 1], np.random.default_rng(3))
        np.testing.assert_array_equal(found.errors[:, j], alone.errors[:, 0])
        np.testing.assert_array_equal(found.second[:, j], alone.second[:, 0])
    assert np.abs(found.errors[:, 1]).min() > 100
    assert np.abs(found.errors[:, [0, 2]]).max() < 10


def test_ranks_along_the_mean_error_do_not_depend_on_chunks(monkeypatch):
    """Memory decides how many data sets are taken at a time: one, five, or all, of a biased posterior."""
    draws, truth, whole = normal(60, 30, 2, seed=1), normal(60, 2, seed=2) - 0.4, pools._chunks
    found = []
    for size in (1, 5, 60):

        def some(draws, truth, places, size=size):
            for start in range(0, len(draws), size):
                rows = slice(start, start + size)
                for _, pool in whole(draws[rows], truth[rows], places[rows]):
                    yield rows, pool

        monkeypatch.setattr(pools, "_chunks", some)
        _, joint = pooled(draws, truth, np.random.default_rng(3))
        found.append(joint.along)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[2])


# --- judging


def test_draws_of_the_prior_are_taken_by_the_keys_or_in_their_own_order():
    """Columns are those of the keys that are given, else of all variables of the prior."""
    prior = {"b": normal(60, 2, seed=1), "a": normal(60, seed=2)}
    flat = SimpleNamespace(truth=np.zeros((5, 3)))
    a, b = prior["a"][:, None], prior["b"]
    for keys, expected in ((None, [b, a]), (["a", "b"], [a, b])):
        np.testing.assert_array_equal(_prior_draws(prior, flat, keys), np.concatenate(expected, axis=1))
    for keys in ("a", ["a"]):
        alone = SimpleNamespace(truth=np.zeros((5, 1)))
        np.testing.assert_array_equal(_prior_draws(prior, alone, keys), a)


@pytest.mark.parametrize(("number", "is_dead"), [(44, False), (46, True)])
def test_draws_are_too_often_all_equal_beyond_four_sds_of_what_may_be(number, is_dead):
    """Exchangeability lets three draws be equal, and the truth another value, in a quarter of 100 data sets
    at most: 25 + 4 sqrt(25) = 45 are the limit."""
    dead = (np.arange(100) < number)[:, None]
    assert _dead(dead, 3).tolist() == [is_dead]


def test_biases_do_not_make_posteriors_lean_towards_too_narrow():
    """Opposite biases of two parameters of right width leave the mean width error within chance, 4 standard
    errors; scores that are half too wide exceed it."""
    scores, biases = normal(200, 2, seed=1), np.array([3.0, -3.0])
    assert abs(VerdictTests._lean(SimpleNamespace(scores=scores + biases))) < 4
    assert VerdictTests._lean(SimpleNamespace(scores=1.5 * scores + biases)) > 4
