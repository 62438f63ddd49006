"""Simulation stores for any cuts, interruptions and damage: they hold the rows of the table and no others."""

import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import SIMULATOR, same

from sbi_models.datasets import SimulationStore
from sbi_models.datasets.shards import shard_name, shard_ranges
from sbi_models.datasets.tiling import Piece, gaps, tiled, to_write, until
from sbi_models.errors import DataError

ON_DISK = settings(max_examples=settings().max_examples // 3)
"""Each file is written to the disk before it counts, which takes milliseconds."""
MOST = 40
TABLE = SIMULATOR.rows(0, MOST, seed=0)
ORIGIN = {"seed": 0, "fingerprint": "f"}
RANGES = st.tuples(st.integers(0, MOST - 1), st.integers(1, 15)).map(lambda r: (r[0], min(MOST, r[0] + r[1])))


# ---- which rows come from where ----------------------------------------------


def rows_of(ranges):
    return {row for start, stop in ranges for row in range(start, stop)}


@given(st.dictionaries(RANGES, st.sampled_from("ab"), max_size=8), st.integers(1, MOST))
def test_shards_that_overlap_give_each_row_once(whole, num_rows):
    """Pieces in order, each of rows that its shard has; together all rows of whole shards, and gaps are all
    others."""
    pieces = tiled([], whole, num_rows)
    taken = [row for piece in pieces for row in range(piece.start, piece.stop)]
    assert taken == sorted(rows_of(whole) & set(range(num_rows)))
    for piece in pieces:
        assert piece.shard[0] <= piece.start < piece.stop <= piece.shard[1]
        assert whole[piece.shard] == piece.sha256
    missing = gaps(pieces, num_rows)
    assert rows_of(missing) == set(range(num_rows)) - set(taken)
    assert all(start < stop for start, stop in missing)
    for n in range(num_rows + 1):
        cut = until(pieces, n)
        assert [row for piece in cut for row in range(piece.start, piece.stop)] == [r for r in taken if r < n]


@given(
    st.lists(RANGES, max_size=4),
    st.lists(st.integers(0, MOST), max_size=6),
    st.integers(1, MOST),
    st.integers(1, 20),
)
def test_what_is_missing_is_written_once(there, ends, num_rows, rows_per_shard):
    """Shards to write have all missing rows and none twice; none of them crosses a multiple of the number of
    rows of a shard but a broken one, which keeps its rows."""
    ends = sorted({0, *ends})
    broken = list(zip(ends[:-1:2], ends[1::2], strict=False))  # disjoint
    whole = {rows: "a" for rows in there if not rows_of([rows]) & rows_of(broken)}
    missing = gaps(tiled([], whole, num_rows), num_rows)
    new = to_write(missing, broken, rows_per_shard)
    written = [row for start, stop in new for row in range(start, stop)]
    assert set(written) >= rows_of(missing)
    assert len(set(written)) == len(written)
    assert set(written) - rows_of(missing) <= rows_of(broken)
    for start, stop in new:
        assert (start, stop) in broken or start // rows_per_shard == (stop - 1) // rows_per_shard


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, MOST))
def test_chosen_pieces_stay(widths, num_rows):
    """Pieces of a manifest are kept, whatever other shards there are."""
    ends = np.cumsum([0, *widths]).tolist()
    chosen = [Piece(a, b, (a, b), "old") for a, b in zip(ends[:-1:2], ends[1::2], strict=False)]
    pieces = tiled(chosen, {(0, 60): "new"}, max(num_rows, ends[-1]))
    assert set(chosen) <= set(pieces)
    assert [row for piece in pieces for row in range(piece.start, piece.stop)] == list(
        range(max(num_rows, ends[-1]))
    )


# ---- on disk -----------------------------------------------------------------


class Interrupted(Exception):
    """A simulation that was stopped."""


class Source:
    """Rows of the table, until an interruption; counts which were asked for."""

    def __init__(self, calls=10**6):
        self.left, self.asked = calls, []

    def __call__(self, start, stop):
        if not self.left:
            raise Interrupted
        self.left -= 1
        self.asked.append((start, stop))
        return SIMULATOR.rows(start, stop, seed=0) if stop > MOST else part(start, stop)


def part(start, stop):
    return {name: value[start:stop] for name, value in TABLE.items()}


def create(folder, number, rows_per_shard, source):
    return SimulationStore.create(folder, source, number, **ORIGIN, rows_per_shard=rows_per_shard)


STEP = st.tuples(st.integers(1, MOST), st.integers(1, MOST), st.integers(0, 4))
DAMAGE = st.none() | st.tuples(
    st.integers(0, 50), st.sampled_from(["cut", "flip", "lose"]), st.floats(0, 1, exclude_max=True)
)


def damage(folder, which, action, share):
    """Cut a file of a store short, flip a bit of it, or delete it."""
    files = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
    if not files:
        return
    path = files[which % len(files)]
    content = bytearray(path.read_bytes())
    place = int(share * len(content))
    if action == "lose" or not content:
        path.unlink()
        return
    if action == "flip":
        content[place] ^= 1
    path.write_bytes(content[:place] if action == "cut" else content)


@ON_DISK
@given(st.lists(st.tuples(STEP, DAMAGE), min_size=1, max_size=4), STEP)
def test_a_store_that_was_stopped_and_damaged_ends_as_it_should(steps, last):
    """Created and extended with any numbers of rows and any sizes of shards, stopped before any shard, a file
    cut, changed or lost in between: the next call gives the rows of the table, with the hash of a store that
    nothing happened to, and computes no row that a whole shard has."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "store")
        for (number, rows_per_shard, calls), harm in steps:
            with suppress(Interrupted):
                create(folder, number, rows_per_shard, Source(calls))
            if harm is not None and folder.exists():
                damage(folder, *harm)
        number, rows_per_shard, _ = last
        there = SimulationStore.missing(folder, number, **ORIGIN, rows_per_shard=rows_per_shard)
        source = Source()
        store = create(folder, number, rows_per_shard, source)
        assert source.asked == there
        assert store.is_intact()
        assert store.num_simulations == number
        same(store.load(), part(0, number))
        undisturbed = create(Path(name, "other"), number, MOST, Source())
        assert store.content_hash == undisturbed.content_hash


@ON_DISK
@given(st.integers(1, MOST), st.integers(1, MOST), st.lists(st.integers(0, MOST), min_size=2, max_size=5))
def test_any_rows_of_any_cut_are_read_back(number, rows_per_shard, ends):
    """Rows from any to any are those of the table, and one after the other all of them."""
    with tempfile.TemporaryDirectory() as name:
        store = create(Path(name), number, rows_per_shard, Source())
        assert [stop - start for start, stop in shard_ranges(Path(name))][:-1] == [rows_per_shard] * (
            -(-number // rows_per_shard) - 1
        )
        ends = sorted(min(end, number) for end in ends)
        for start, stop in pairwise(ends):
            same(store.rows(start, stop), part(start, stop))
        with pytest.raises(DataError, match="Expected rows"):
            store.rows(0, number + 1)


@ON_DISK
@given(st.permutations(range(5)), st.integers(1, 5), st.integers(1, 8), st.integers(0, 4))
def test_any_workers_in_any_order_make_one_store(order, number, width, again):
    """Shards that are written in any order, one of them by two workers, are one store once all are there, and
    an error that names what is missing before."""
    with tempfile.TemporaryDirectory() as name:
        folder, shards = Path(name), [(k * width, (k + 1) * width) for k in range(number)]
        for place, k in enumerate([*(k for k in order if k < number), again % number]):
            if place == number - 1:
                with pytest.raises(
                    DataError, match=f"no whole shard of rows {shards[k][0]} to {shards[k][1]}"
                ):
                    SimulationStore.finish(folder, number * width, **ORIGIN, rows_per_shard=width)
            SimulationStore.write(folder, *shards[k], part(*shards[k]), **ORIGIN)
        assert (folder / shard_name(*shards[0])).is_file()
        store = SimulationStore.finish(folder, number * width, **ORIGIN, rows_per_shard=width)
        same(store.load(), part(0, number * width))
