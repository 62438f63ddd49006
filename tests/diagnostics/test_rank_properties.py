"""Ranks for any draws and true values: their definition by a loop, ties, and what does not change them."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sbi_models.diagnostics.metrics import fractional_ranks, joint_ranks, random_ranks, tarp_ranks

FINITE = st.floats(-1e300, 1e300)
FEW_VALUES = st.integers(-2, 2).map(float)


@st.composite
def pools(draw, elements=FINITE | FEW_VALUES):
    """Draws (n, S, d) and true values (n, d), often tied."""
    n, draws, dim = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    pool = draw(arrays.arrays("f8", (n, draws + 1, dim), elements=elements, fill=st.nothing()))
    return pool[:, 1:], pool[:, 0]


def counted(samples, truth):
    """How many draws are below, and how many equal, by a loop in Python."""
    below, ties = np.zeros(truth.shape, dtype=int), np.zeros(truth.shape, dtype=int)
    for i, row in enumerate(samples):
        for draw in row:
            for k, value in enumerate(draw):
                below[i, k] += value < truth[i, k]
                ties[i, k] += value == truth[i, k]
    return below, ties


@given(pools(), st.integers(0, 2**40))
def test_ranks_are_counts(pool, seed):
    """Fractional ranks are the midpoint of the places that are left to the truth, random ranks one of these
    places."""
    samples, truth = pool
    below, ties = counted(samples, truth)
    slots = samples.shape[1] + 1
    places = np.stack([below + t for t in range(slots)])
    np.testing.assert_allclose(
        fractional_ranks(samples, truth),
        np.where(np.arange(slots)[:, None, None] <= ties, places + 0.5, 0).sum(axis=0) / (ties + 1) / slots,
        rtol=1e-14,
    )
    ranks = random_ranks(samples, truth, seed=seed)
    assert ((below <= ranks) & (ranks <= below + ties)).all()


def test_every_place_among_ties_is_as_likely():
    """Of 4000 truths that equal all of three draws, each of the four places has a quarter, within 5 standard
    errors."""
    ranks = random_ranks(np.zeros((4000, 3, 1)), np.zeros((4000, 1)), seed=1)
    np.testing.assert_allclose(np.bincount(ranks.ravel(), minlength=4), 1000, atol=5 * 750**0.5)


@given(pools(), st.randoms(use_true_random=False))
def test_what_does_not_change_ranks(pool, random):
    """Neither the order of draws nor an increasing map; a decreasing one takes rank u to 1 - u."""
    samples, truth = pool
    ranks = fractional_ranks(samples, truth)
    order = list(range(samples.shape[1]))
    random.shuffle(order)
    np.testing.assert_array_equal(fractional_ranks(samples[:, order], truth), ranks)
    np.testing.assert_array_equal(fractional_ranks(samples / 2**10, truth / 2**10), ranks)
    np.testing.assert_allclose(fractional_ranks(-samples, -truth), 1 - ranks, rtol=0, atol=1e-15)


@given(pools(FEW_VALUES), st.randoms(use_true_random=False))
def test_all_places_of_a_pool_together(pool, random):
    """If each value of a pool in turn is the truth among the others, fractional ranks average to 1/2 and
    random ranks of a pool without ties are 0, ..., S, once each: that is what makes them uniform."""
    samples, truth = pool
    whole = np.concatenate([truth[:, None], samples], axis=1)
    turns = [(np.delete(whole, k, axis=1), whole[:, k]) for k in range(whole.shape[1])]
    np.testing.assert_allclose(np.mean([fractional_ranks(*turn) for turn in turns], axis=0), 0.5, atol=1e-14)
    distinct = np.argsort(np.argsort(whole, axis=1, kind="stable"), axis=1).astype(float)
    ranks = [random_ranks(np.delete(distinct, k, axis=1), distinct[:, k]) for k in range(whole.shape[1])]
    expected = np.broadcast_to(np.arange(whole.shape[1])[:, None, None], np.shape(ranks))
    np.testing.assert_array_equal(np.sort(ranks, axis=0), expected)


@st.composite
def joint_pools(draw):
    """Draws, true values and reference points of several data sets; values are often equal."""
    n, dim = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    unit = 10.0 ** draw(st.integers(-9, 9))
    shape = (n, dim + 6, dim)
    values = draw(arrays.arrays("f8", shape, elements=FEW_VALUES | st.floats(-9, 9), fill=st.nothing()))
    return values[:, 2:] * unit, values[:, 0] * unit, values[:, 1] * unit


ALONE = np.zeros((2, 6, 2)), np.array([[0.0, 1e-10], [0.0, -200.0]]), np.array([[0.0, 0.0], [100.0, 0.0]])
ALONE[0][1, 5, 0] = -200.0
"""Of two data sets, the other has no spread at all, which a difference of sums hides."""


@given(joint_pools(), st.integers(0, 2**40))
@example(ALONE, 0)
def test_tarp_ranks_are_counts_of_distances(pool, seed):
    """Each data set by itself: distances to its reference point, in sds of the true values of the others, 1
    where these are equal; draws that are nearer, up to rounding, are counted."""
    samples, truth, references = pool
    ranks = tarp_ranks(samples, truth, references, seed=seed)
    for i, rank in enumerate(ranks):
        others = np.delete(truth, i, axis=0)
        sd = np.where(np.ptp(others, axis=0) > 0, others.std(axis=0), 1.0)
        squared = (((samples[i] - references[i]) / sd) ** 2).sum(axis=1)
        own = (((truth[i] - references[i]) / sd) ** 2).sum()
        assert (squared < own * (1 - 1e-9)).sum() <= rank <= (squared <= own * (1 + 1e-9)).sum()


@given(joint_pools(), st.integers(-20, 20), st.integers(0, 2**40))
def test_joint_ranks_do_not_depend_on_units(pool, power, seed):
    """They lie between 0 and 1, and are the same to the bit in units that are powers of two."""
    samples, truth, _ = pool
    ranks = joint_ranks(samples, truth, seed=seed)
    assert ranks.shape == (len(truth),)
    assert ((ranks > 0) & (ranks < 1)).all()
    np.testing.assert_array_equal(joint_ranks(samples * 2.0**power, truth * 2.0**power, seed=seed), ranks)
