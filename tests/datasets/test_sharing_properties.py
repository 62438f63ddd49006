"""Data sharing for any number of members, rows and any reuse: sums, order and overlaps are exact."""

from fractions import Fraction
from math import ceil

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from sbi_models.datasets import RingBatches, Sharing

MEMBERS = st.integers(1, 12)
REUSE = st.integers(0, 100).map(lambda percent: Fraction(percent, 100))


@given(MEMBERS, REUSE, st.integers(1, 2_000))
@example(5, Fraction(8, 10), 50)
@example(3, Fraction(1, 10), 10)
def test_rings_and_windows_are_those_of_exact_fractions(members, reuse, number):
    """ceil(f B) rows of a step and ceil(N / f) rows of a member, with f = r + (1 - r) E of the decimal
    numbers as they are written, though float64 has hardly any of them."""
    sharing = Sharing(members=members, reuse=float(reuse))
    factor = reuse + (1 - reuse) * members
    assert sharing.ring(number) == ceil(factor * number)
    assert sharing.window(number) == ceil(number / factor)


@given(MEMBERS, REUSE, st.integers(1, 300), st.integers(0, 2**40))
def test_windows_are_neighbours_on_one_ring(members, reuse, num_rows, seed):
    """Each member has its number of rows from its place on, on one shuffled ring of all rows, which with no
    reuse belong to one member each."""
    sharing = Sharing(members=members, reuse=float(reuse))
    if num_rows < members:
        return
    windows = sharing.windows(num_rows, seed)
    if windows is None:
        assert members == 1 or reuse == 1
        return
    starts, size = sharing.starts(num_rows), sharing.window(num_rows)
    ring = np.concatenate(Sharing(members, 0.0).windows(num_rows, seed))
    np.testing.assert_array_equal(np.sort(ring), np.arange(num_rows))
    for k, (start, window) in enumerate(zip(starts, windows, strict=True)):
        assert abs(start - k * num_rows / members) <= 0.5
        assert len(window) in ({size} if reuse else {size, size - 1})
        np.testing.assert_array_equal(window, ring[(start + np.arange(len(window))) % num_rows])


@given(MEMBERS, REUSE, st.integers(1, 40), st.integers(0, 40))
def test_rings_are_shared_in_order_whatever_was_lost(members, reuse, batch_size, lost):
    """Of a ring that failed simulations have made shorter, each member has a batch of different rows in
    the order of the ring, as many as its share of what is left; with no reuse no two have one, as long as
    there is one for each."""
    sharing = Sharing(members=members, reuse=float(reuse))
    whole = sharing.ring(batch_size)
    left = max(1, whole - lost)
    rings = Rings([{"row": torch.arange(left)}])
    (batches,) = RingBatches(rings, sharing, batch_size)
    rows = [batch["row"].tolist() for batch in batches]
    expected = batch_size if left == whole else max(1, left * batch_size // whole)
    assert [len(set(own)) for own in rows] == [expected] * members
    for start, own in zip(sharing.starts(left), rows, strict=True):
        assert own == [(start + k) % left for k in range(expected)]
    if reuse == 0 and left >= members:
        assert len({row for own in rows for row in own}) == expected * members


class Rings(list):
    """Prepared batches, each a ring of rows."""

    fingerprint = "rings"

    def set_epoch(self, epoch):
        del epoch


@given(MEMBERS, st.integers(1, 500), st.data())
def test_parts_of_members_are_those_of_all(members, num_rows, data):
    """Which members train changes no rows: windows depend on the number of members alone."""
    trained = data.draw(st.frozensets(st.integers(0, members - 1), min_size=1))
    reuse = data.draw(REUSE)
    alone, together = Sharing(members, float(reuse), trained), Sharing(members, float(reuse))
    assert alone.factor == together.factor
    assert alone.starts(num_rows) == together.starts(num_rows)
    if num_rows >= members and not together.is_common:
        for own, all_of_it in zip(alone.windows(num_rows, 1), together.windows(num_rows, 1), strict=True):
            np.testing.assert_array_equal(own, all_of_it)
