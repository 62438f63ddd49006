"""Weights of a mixture: accepted, shared out and learned."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm

from sbi_models.approximators.mixture import (
    checked_weights,
    cross_validated_shrinkage,
    log_mixture,
    merged_order,
    stacked_weights,
    whole_shares,
)
from sbi_models.errors import ConfigurationError, DataError

NAMES = ["a", "b", "c"]


def test_weights_are_normalized_and_completed():
    """Weights of any scale get the sum 1; members that are not named get 0."""
    assert checked_weights({"c": 3, "a": np.float32(1)}, NAMES) == {"a": 0.25, "b": 0.0, "c": 0.75}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5, 0.0], r"as a dict of members to weights, got \[0.5"),
        (0.5, "as a dict of members to weights, got 0.5"),
        ({"A": 1.0}, r"no member 'A' to give a weight. Did you mean 'a'\?|no member 'A'"),
        ({"a": 1.0, "b": -0.1}, "weight of member 'b' as a finite number of 0 or more, got -0.1"),
        ({"a": float("nan")}, "weight of member 'a' as a finite number of 0 or more, got nan"),
        ({"a": float("inf")}, "weight of member 'a' as a finite number of 0 or more, got inf"),
        ({"a": "1"}, "weight of member 'a' as a finite number"),
        ({"a": None}, "weight of member 'a' as a finite number"),
        ({"a": True}, "weight of member 'a' as a finite number"),
        ({"a": 0.0, "b": 0}, "with a finite sum above 0"),
        ({}, "with a finite sum above 0"),
        ({"a": 1e308, "b": 1e308}, "with a finite sum above 0"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    """A list, unknown members, and weights that are negative, not finite, no numbers, or all zero are errors
    that say so."""
    with pytest.raises(ConfigurationError, match=message):
        checked_weights(weights, NAMES)


@pytest.mark.parametrize("num_samples", [1, 2, 7, 10, 1000])
@pytest.mark.parametrize(
    "weights", [[0.6, 0.4], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25], [1.0, 0.0], [0.1] * 10]
)
def test_shares_are_largest_remainders(weights, num_samples):
    """Every data set has num_samples draws, each member within one of its quota, and none was rounded up past
    a larger remainder."""
    weights = np.array(weights)
    shares = whole_shares(weights, num_samples, 60)
    assert shares.shape == (60, len(weights))
    assert (shares.sum(axis=1) == num_samples).all()
    quotas = weights * num_samples
    assert (np.abs(shares - quotas) < 1).all()
    assert (shares[:, weights == 0] == 0).all()
    rest = quotas - np.floor(quotas + 1e-9)
    up = shares > np.floor(quotas + 1e-9)
    for row in up:
        if row.any() and not row.all():
            assert rest[row].min() >= rest[~row].max() - 1e-9


def test_exact_quotas_are_exact():
    """0.6 and 0.4 of 500 are 300 and 200 in every data set."""
    assert (whole_shares(np.array([0.6, 0.4]), 500, 7) == [300, 200]).all()


def test_ties_go_round():
    """Of equal remainders no member is favoured: over as many data sets as there are members, all have the
    same number of draws."""
    for members in (2, 3, 5, 7):
        for num_samples in range(1, 9):
            total = whole_shares(np.full(members, 1 / members), num_samples, 2 * members).sum(axis=0)
            assert (total == 2 * num_samples).all()


def test_merged_draws_are_shuffled_once_each():
    """Each data set has the first draws of every member's share, each once, in an order of its own that the
    seed decides."""
    shares = whole_shares(np.array([0.5, 0.3, 0.2]), 11, 6)
    order = merged_order(shares, seed=3)
    starts = np.concatenate([[0], np.cumsum(shares.max(axis=0))])
    for row, counts in zip(order, shares, strict=True):
        expected = np.concatenate(
            [np.arange(start, start + count) for start, count in zip(starts, counts, strict=False)]
        )
        np.testing.assert_array_equal(np.sort(row), expected)
        assert (row != expected).any()
    np.testing.assert_array_equal(order, merged_order(shares, seed=3))
    np.testing.assert_array_equal(order[:2], merged_order(shares[:2], seed=3)[:, :11])
    assert (order != merged_order(shares, seed=4)).any()


def test_every_order_of_merged_draws_is_as_likely():
    """Over 2400 data sets of 4 draws, two of each member, each of the 24 orders comes 100 times, within 5
    standard errors, and so often is the order of a data set that of the one before."""
    order = merged_order(np.tile([2, 2], (2400, 1)), seed=5)
    rows, counts = np.unique(order, axis=0, return_counts=True)
    assert len(rows) == 24
    assert np.abs(counts - 100).max() < 5 * np.sqrt(2400 / 24 * 23 / 24)
    repeated = int((order[1:] == order[:-1]).all(axis=1).sum())
    assert abs(repeated - 100) < 5 * np.sqrt(2400 / 24 * 23 / 24)


def test_the_log_density_of_a_mixture_is_the_weighted_log_sum_exp():
    """To rounding, also where densities under- or overflow, where a weight is 0 and where no member gives any
    density."""
    log_densities = np.random.default_rng(0).normal(size=(50, 3)) * np.array([1, 800, 800])
    log_densities[0] = -np.inf
    log_densities[1, 0] = -np.inf
    for weights in ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0]):
        got = log_mixture(log_densities, np.array(weights))
        np.testing.assert_allclose(got[1:], logsumexp(log_densities[1:], b=weights, axis=1), rtol=1e-12)
        assert got[0] == -np.inf


# --- learned weights


def score(weights, log_densities):
    return logsumexp(log_densities, b=weights, axis=1).mean()


@pytest.mark.parametrize("shrinkage", [0.0, 3.0, 200.0])
@pytest.mark.parametrize("seed", range(4))
def test_learned_weights_are_the_best_ones(seed, shrinkage):
    """No weights found by a general optimizer, at random or at the corners have a shrunk score higher by more
    than 1e-7 nats."""
    rng = np.random.default_rng(seed)
    log_densities = rng.normal(size=(200, 4)) * rng.uniform(0.2, 3, size=4) - rng.uniform(0, 2, size=4)

    def shrunk(w):
        penalty = np.log(np.maximum(w, 1e-300)).mean() if shrinkage else 0.0
        return score(w, log_densities) + shrinkage / 200 * penalty

    learned = stacked_weights(log_densities, shrinkage)
    assert learned.sum() == pytest.approx(1.0)
    assert (learned >= 0).all()
    found = minimize(
        lambda w: -shrunk(np.abs(w) / np.abs(w).sum()),
        np.full(4, 0.25),
        method="Nelder-Mead",
        options={"fatol": 1e-10},
    )
    others = [*rng.dirichlet(np.full(4, 0.5), size=300), *np.eye(4), np.full(4, 0.25)]
    assert shrunk(learned) > max(-found.fun, *map(shrunk, others)) - 1e-7


def test_nothing_speaks_for_equal_weights_unless_it_is_given():
    """A member that is better in each of three rows has all the weight by default, and less with a
    shrinkage."""
    log_densities = np.array([[0.0, -3.0], [1.0, -1.0], [-2.0, -4.0]])
    assert stacked_weights(log_densities) == pytest.approx([1.0, 0.0], abs=1e-3)
    assert stacked_weights(log_densities, 1.0)[1] > 0.1


def test_infinite_shrinkage_gives_equal_weights():
    """And more of it is nearer to them."""
    log_densities = np.random.default_rng(0).normal(size=(50, 3)) + np.array([1.0, 0.0, 0.0])
    first = [stacked_weights(log_densities, shrinkage)[0] for shrinkage in (0, 5, 50, 500, np.inf)]
    assert first == sorted(first, reverse=True)
    assert first[-1] == 1 / 3


@pytest.mark.nightly
def test_the_shrinkage_that_is_found_follows_the_evidence():
    """Members that are equally good keep equal weights, nearly always; a bad one loses its weight; little
    data are no evidence."""
    rng = np.random.default_rng(6)

    def members(n, offsets):
        theta = rng.normal(size=(n, 1))
        return norm.logpdf(theta, np.array(offsets), 1.0) + 0.5 * rng.normal(size=(n, len(offsets)))

    alike = [cross_validated_shrinkage(members(100, [0.3, -0.3, 0.0])) for _ in range(20)]
    assert np.mean(np.array(alike) >= 100) > 0.7
    for _ in range(5):
        log_densities = members(400, [0.0, 0.0, 4.0])
        assert stacked_weights(log_densities, cross_validated_shrinkage(log_densities))[2] < 0.1
    assert cross_validated_shrinkage(members(1, [0.0, 4.0])) == np.inf


def test_the_shrinkage_that_is_found_is_a_function_of_the_rows():
    """Of 12 tables of 40 rows, for which other folds would give another shrinkage now and then, each gives
    the same one again, whatever the global random state."""
    rng = np.random.default_rng(8)
    tables = rng.normal(size=(12, 40, 3)) + np.array([0.5, 0.0, 0.0])
    found = []
    for seed in range(2):
        np.random.seed(seed)
        found.append([cross_validated_shrinkage(table) for table in tables])
    assert found[0] == found[1]
    assert len(set(found[0])) > 2


def test_learned_weights_beat_equal_ones_on_new_data_where_these_are_worse():
    """With one member of three useless, 200 held-out rows are enough to do better on new ones; with three
    alike, no harm is done."""
    rng = np.random.default_rng(7)

    def rows(n, offsets):
        return norm.logpdf(rng.normal(size=(n, 1)) - np.array(offsets), 0.0, 1.0)

    for offsets, least in (([0.2, -0.2, 5.0], 0.1), ([0.2, -0.2, 0.0], -0.01)):
        held_out, new = rows(200, offsets), rows(20_000, offsets)
        learned = stacked_weights(held_out, cross_validated_shrinkage(held_out))
        assert score(learned, new) - score(np.full(3, 1 / 3), new) > least


def test_stacking_finds_known_weights():
    """With 20 000 draws of 0.7 N(0, 1) + 0.3 N(3, 1/2), the weights of these two are found to 0.01, and a
    useless third gets none."""
    rng = np.random.default_rng(5)
    first = rng.random(20_000) < 0.7
    theta = np.where(first, rng.normal(size=first.size), 3 + 0.5 * rng.normal(size=first.size))
    log_densities = np.stack(
        [norm.logpdf(theta), norm.logpdf(theta, 3, 0.5), norm.logpdf(theta, -9, 1)], axis=1
    )
    np.testing.assert_allclose(stacked_weights(log_densities), [0.7, 0.3, 0.0], atol=0.01)


def test_rows_without_density_are_left_out():
    """A row outside of every member's support changes nothing; if there are no others, that is an error."""
    log_densities = np.random.default_rng(1).normal(size=(50, 2))
    outside = np.full((3, 2), -np.inf)
    np.testing.assert_array_equal(
        stacked_weights(np.concatenate([log_densities, outside])), stacked_weights(log_densities)
    )
    with pytest.raises(DataError, match="to which a member gives a density"):
        stacked_weights(outside)
