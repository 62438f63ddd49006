"""The table of simulations of a seed for any cut: a row is a function of seed and number alone."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sbi_models.simulators import FailurePolicy, make_simulator

MOST = 40


def one(rng):
    if rng.uniform() < 0.2:
        raise ArithmeticError("now and then")
    return {"theta": rng.normal(size=2), "k": rng.integers(9)}


def many(batch_size, rng):
    theta = rng.normal(size=(batch_size, 2))
    theta[rng.uniform(size=batch_size) < 0.2] = np.nan
    return {"theta": theta, "k": rng.integers(9, size=batch_size)}


POLICY = FailurePolicy(retries=20, non_finite=True)
SIMULATORS = {
    "rows that fail": make_simulator(one, failures=POLICY),
    **{
        f"blocks of {size}": make_simulator(many, is_batched=True, block_size=size, failures=POLICY)
        for size in (1, 3, 16)
    },
}
TABLES = {name: simulator.rows(0, MOST, seed=5) for name, simulator in SIMULATORS.items()}


@given(st.sampled_from(list(SIMULATORS)), st.sets(st.integers(0, MOST), min_size=2, max_size=6), st.data())
def test_any_cut_gives_the_same_table(name, ends, data):
    """Parts between any rows, computed in any order, are those of the whole to the bit, for single rows and
    for blocks, of which some fail and are drawn again."""
    parts = data.draw(st.permutations(list(pairwise(sorted(ends)))))
    for start, stop in parts:
        rows = SIMULATORS[name].rows(start, stop, seed=5, progress=False)
        assert rows.keys() == TABLES[name].keys()
        for key, value in rows.items():
            np.testing.assert_array_equal(value, TABLES[name][key][start:stop])
            assert value.dtype == TABLES[name][key].dtype
