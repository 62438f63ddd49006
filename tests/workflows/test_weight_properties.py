"""Weights of any draws and any members: they sum to one, and what they do not depend on."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import logsumexp

from sbi_models.approximators.mixture import (
    checked_weights,
    log_mixture,
    merged_order,
    stacked_weights,
    whole_shares,
)
from sbi_models.diagnostics import effective_sample_share, largest_weight_share, pareto_smoothed
from sbi_models.workflows.resampling import log_mean_weight, positions_by_weight

NATS = st.integers(-3200, 3200).map(lambda k: k / 64) | st.integers(-2, 2).map(float) | st.just(-np.inf)
"""Numbers to which integers are added without rounding."""


def log_weights(rows=(1, 3), draws=(1, 60), elements=NATS):
    """Log weights (n, S), often tied; each data set has a draw with some weight."""
    return st.tuples(st.integers(*rows), st.integers(*draws)).flatmap(
        lambda shape: arrays.arrays("f8", shape, elements=elements).filter(
            lambda values: np.isfinite(values.max(axis=1)).all()
        )
    )


# ---- importance weights ------------------------------------------------------


@given(log_weights(), st.floats(-1e3, 1e3), st.randoms(use_true_random=False))
def test_effective_draws_are_between_one_and_all(values, constant, random):
    """ESS is 1 / sum w^2 of weights that sum to one, so between 1 / max w and 1 / (max w)^2, and at most S; a
    constant and the order of draws change nothing."""
    draws = values.shape[1]
    weights = np.exp(values - logsumexp(values, axis=1, keepdims=True))
    share, largest = effective_sample_share(values), largest_weight_share(values)
    np.testing.assert_allclose(share, 1 / (weights**2).sum(axis=1) / draws, rtol=1e-12)
    np.testing.assert_allclose(largest, weights.max(axis=1), rtol=1e-12)
    assert ((share * draws >= 1 - 1e-12) & (share <= 1 + 1e-12)).all()
    assert (share * draws * largest >= 1 - 1e-12).all()
    assert (share * draws * largest**2 <= 1 + 1e-12).all()
    order = random.sample(range(draws), draws)
    for function, expected in ((effective_sample_share, share), (largest_weight_share, largest)):
        np.testing.assert_allclose(function(values[:, order] + constant), expected, rtol=1e-9)


@pytest.mark.parametrize("tied", range(95, 125))
def test_draws_that_are_tied_at_the_top_are_weights(tied):
    """However many of 1500 draws have the largest weight, k is a number and weights sum to one, the heaviest
    of them being e times as heavy as the others at most."""
    smoothed, k = pareto_smoothed(np.where(np.arange(1500) < tied, 0.0, -1.0)[None])
    assert k[0] < 0.7
    np.testing.assert_allclose(np.exp(smoothed).sum(), 1, rtol=1e-12)
    assert np.ptp(smoothed) <= 1 + 1e-12


@given(log_weights(), st.integers(-200, 200), st.randoms(use_true_random=False))
def test_smoothed_weights_are_weights(values, constant, random):
    """They sum to one, draws without weight keep none, and a heavier draw stays heavier; a constant and the
    order of draws change neither them nor k."""
    smoothed, k = pareto_smoothed(values)
    np.testing.assert_allclose(np.exp(smoothed).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(np.isneginf(smoothed), np.isneginf(values))
    for before, after in zip(values, smoothed, strict=True):
        order = np.argsort(before, kind="stable")
        finite = order[np.isfinite(before[order])]
        assert (np.diff(after[finite]) >= -1e-12).all()
    order = random.sample(range(values.shape[1]), values.shape[1])
    again = pareto_smoothed(values[:, order] + constant)
    distinct = [len(np.unique(row[np.isfinite(row)])) == np.isfinite(row).sum() for row in values]
    for i in np.flatnonzero(distinct):  # of tied draws the first has the place of the lighter one
        np.testing.assert_allclose(again.pareto_k[i], k[i], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            np.exp(again.log_weights[i]), np.exp(smoothed[i, order]), rtol=1e-6, atol=1e-12
        )


@given(log_weights(rows=(1, 1)), st.integers(1, 200), st.integers(0, 2**40))
def test_resampled_draws_come_as_often_as_their_weight_says(values, number, seed):
    """A draw of weight w of N comes N w times, rounded up or down, and one without weight never."""
    (row,) = values
    chosen = positions_by_weight(row, number, np.random.default_rng(seed))
    assert chosen.shape == (number,)
    copies = np.bincount(chosen, minlength=len(row))
    expected = number * np.exp(row - logsumexp(row))
    assert (np.abs(copies - expected) < 1 + 1e-9).all()
    assert (copies[np.isneginf(row)] == 0).all()


@given(log_weights(rows=(1, 1)), st.floats(-100, 100))
def test_the_evidence_moves_with_the_weights(values, constant):
    """log p(x) is the log of the mean weight, so a constant is added to it; it is at most the largest log
    weight."""
    (row,) = values
    ((evidence,), (moved,)) = log_mean_weight(values), log_mean_weight(values + constant)
    assert np.isclose(evidence, logsumexp(row) - np.log(len(row)), rtol=1e-12, atol=1e-12)
    assert np.isclose(moved, evidence + constant, rtol=0, atol=1e-9)
    assert evidence <= row.max() + 1e-12


# ---- weights of the members of a mixture -------------------------------------


@st.composite
def member_weights(draw):
    """Weights of one to six members, some of them 0."""
    numbers = st.floats(1e-6, 1.0) | st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0])
    weights = np.array(draw(st.lists(numbers, min_size=1, max_size=6)))
    assume(weights.sum() > 0)
    return weights / weights.sum()


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e300), min_size=1), st.integers(-300, 3))
def test_weights_of_any_scale_sum_to_one(weights, power):
    """Named members keep their ratios, others have 0."""
    weights = {name: weight * 10.0**power for name, weight in weights.items()}
    total = sum(weights.values())
    assume(0 < total < np.inf)
    checked = checked_weights(weights, "abcdef")
    assert list(checked) == list("abcdef")
    assert abs(sum(checked.values()) - 1) < 1e-12
    for name, value in checked.items():
        assert abs(value - weights.get(name, 0.0) / total) < 1e-12


@given(member_weights(), st.integers(1, 300), st.integers(1, 7), st.integers(0, 2**40))
def test_whole_shares_add_up(weights, num_samples, num_datasets, seed):
    """Each data set has all of its draws; each member its quota, rounded up or down, and none of weight 0;
    merged, each data set has the first draws of every member, each once."""
    shares = whole_shares(weights, num_samples, num_datasets)
    assert shares.shape == (num_datasets, len(weights))
    assert (shares.sum(axis=1) == num_samples).all()
    assert (np.abs(shares - weights * num_samples) < 1 + 1e-6).all()
    assert (shares[:, weights == 0] == 0).all()
    order = merged_order(shares, seed)
    starts = np.concatenate([[0], np.cumsum(shares.max(axis=0))[:-1]])
    for row, counts in zip(order, shares, strict=True):
        firsts = [np.arange(start, start + count) for start, count in zip(starts, counts, strict=True)]
        np.testing.assert_array_equal(np.sort(row), np.concatenate(firsts))


@given(log_weights(draws=(1, 6)), st.data())
def test_the_density_of_a_mixture(values, data):
    """It is the weighted log-sum-exp, and between the smallest and the largest density of a member with
    weight."""
    weights = np.array(
        data.draw(st.lists(st.floats(0.01, 1.0), min_size=values.shape[1], max_size=values.shape[1]))
    )
    weights /= weights.sum()
    mixture = log_mixture(values, weights)
    np.testing.assert_allclose(mixture, logsumexp(values, b=weights, axis=1), rtol=1e-12, atol=1e-12)
    assert ((values.min(axis=1) - 1e-12 <= mixture) & (mixture <= values.max(axis=1) + 1e-12)).all()


@given(
    log_weights(rows=(2, 8), draws=(2, 4), elements=st.floats(-20, 5)),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.randoms(use_true_random=False),
)
def test_learned_weights_know_neither_units_nor_order(densities, shrinkage, random):
    """They sum to one; another factor of each row's densities and another order of rows and members change
    only that order; no corner and no equal weights score better."""
    weights = stacked_weights(densities, shrinkage)
    assert abs(weights.sum() - 1) < 1e-12
    assert (weights >= 0).all()
    n, members = densities.shape
    rows, columns = random.sample(range(n), n), random.sample(range(members), members)
    factors = np.array([[random.uniform(-5, 5)] for _ in range(n)])

    def score(weights):
        pull = shrinkage / (n * members) * np.log(np.maximum(weights, 1e-300)).sum() if shrinkage else 0.0
        return log_mixture(densities, weights).mean() + pull

    again = np.empty(members)
    again[columns] = stacked_weights((densities + factors)[rows][:, columns], shrinkage)
    best, bound = score(weights), 1e-7 + (1 + shrinkage / n) * np.log(members) / 20_000
    assert abs(score(again) - best) < bound
    for other in (*np.eye(members), np.full(members, 1 / members)):
        assert score(other) <= best + bound
