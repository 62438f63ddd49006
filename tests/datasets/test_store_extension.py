"""A simulation store grows: what is there stays as it is, only new rows are computed, and a hash names rows
whatever their shards."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import SIMULATOR, Rows, create, same

from sbi_models.datasets import SimulationStore
from sbi_models.datasets import manifest as manifest_module
from sbi_models.datasets.shards import Shard
from sbi_models.errors import ConfigurationError, DataError

ORIGIN = {"seed": 0, "fingerprint": "f"}
FIRST_1000 = SIMULATOR.rows(0, 1000, seed=0)


def cheap(start, stop):
    """Rows of the table of seed 0, from memory."""
    return {name: value[start:stop] for name, value in FIRST_1000.items()}


def shards(folder):
    """The shards, their bytes, and when they were written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("shard-*")}


def test_an_extension_computes_new_rows_alone(tmp_path):
    """From 100 to 200 rows, the first 100 are not asked for, their files keep their bytes, and the new ones
    begin at 100."""
    create(tmp_path, n=100, rows_per_shard=32)
    before, rows = shards(tmp_path), Rows()
    store = create(tmp_path, n=200, rows_per_shard=32, rows=rows)
    assert rows.asked == [(100, 128), (128, 160), (160, 192), (192, 200)]
    assert before.items() <= shards(tmp_path).items()
    assert store.num_simulations == 200
    same(store.load(), SIMULATOR.rows(0, 200, seed=0))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    ends=st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True),
    sizes=st.lists(st.integers(4, 70), min_size=4, max_size=4),
    number=st.integers(1, 60),
)
def test_the_hash_does_not_depend_on_the_cut(tmp_path_factory, ends, sizes, number):
    """However often it was extended, and in shards of whatever sizes, a store and its first rows have the
    hash of the same rows at once."""
    folder = tmp_path_factory.mktemp("store")
    for end, size in zip(ends, sizes, strict=False):
        grown = SimulationStore.create(folder / "grown", cheap, end, **ORIGIN, rows_per_shard=size)
        assert grown.num_simulations == end
    for n in {*ends, min(number, max(ends))}:
        once = SimulationStore.create(folder / f"once {n}", cheap, n, **ORIGIN, rows_per_shard=1000)
        grown = SimulationStore.open(folder / "grown").first(n)
        assert grown.content_hash == once.content_hash
        same(grown.load(), cheap(0, n))
    assert SimulationStore.open(folder / "grown").num_simulations == max(ends)


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.arange(6.0), "b": np.arange(6)},
        {"a": np.arange(6.0).astype("f4")},
        {"b": np.arange(6.0)},
        {"a": np.arange(6.0)[:, None]},
        {"a": np.arange(6)},
        {"a": np.arange(5.0)},
        {"a": np.array([0.0, 1, 2, 3, 5, 4])},
        {"a": np.array([-0.0, 1, 2, 3, 4, 5])},
    ],
)
def test_the_hash_names_names_types_shapes_values_and_order(tmp_path, other):
    """One more variable, another type, name, shape, number, order, or sign of zero gives another hash."""
    hashes = set()
    for k, table in enumerate(({"a": np.arange(6.0)}, other)):
        n = len(next(iter(table.values())))
        rows = lambda start, stop, table=table: {name: value[start:stop] for name, value in table.items()}  # noqa: E731
        hashes.add(SimulationStore.create(tmp_path / str(k), rows, n, **ORIGIN).content_hash)
    assert len(hashes) == 2


def test_the_first_rows_are_a_store_of_their_own(tmp_path):
    """They have their number, values, hash and shards: a shard beyond them may be damaged, one with some of
    them may not."""
    whole = create(tmp_path, n=25)
    first = whole.first(12)
    assert (first.num_simulations, first.first(3).num_simulations) == (12, 3)
    same(first.load(), SIMULATOR.rows(0, 12, seed=0))
    assert first.content_hash == create(tmp_path / "12", n=12).content_hash != whole.content_hash
    (tmp_path / "shard-000000020-000000025.safetensors").write_bytes(b"")
    assert first.is_intact()
    assert not whole.is_intact()
    (tmp_path / "shard-000000010-000000020.safetensors").write_bytes(b"")
    assert not first.is_intact()
    with pytest.raises(DataError, match="missing or damaged"):
        first.load()
    with pytest.raises(DataError, match=r"Expected at least 26 simulations in .*, got 25"):
        whole.first(26)
    with pytest.raises(ConfigurationError, match="num_simulations"):
        whole.first(0)


def test_a_store_never_shrinks(tmp_path):
    """Asked for less than it has, it gives the first rows, stays as long as it was, and notes their hash; no
    shard is read beyond them."""
    create(tmp_path, n=25)
    (tmp_path / "shard-000000020-000000025.safetensors").unlink()
    rows = Rows()
    first = create(tmp_path, n=12, rows=rows)
    assert (first.num_simulations, rows.asked) == (12, [])
    assert SimulationStore.open(tmp_path).num_simulations == 25
    assert first.manifest["extents"].keys() == {"12", "25"}
    assert SimulationStore.missing(tmp_path, 25, **ORIGIN, rows_per_shard=7) == [(20, 25)]


def test_known_hashes_are_not_computed_again_unless_a_shard_has_changed(tmp_path, monkeypatch):
    """An extension computes the hash of the whole alone; one over a shard whose bytes are others trusts no
    hash that covers it."""
    computed, plain = [], manifest_module.hash_content
    monkeypatch.setattr(
        "sbi_models.datasets.coverage.hash_content",
        lambda *arguments: computed.append(arguments[1][-1].stop) or plain(*arguments),
    )
    for n in (10, 20, 30):
        create(tmp_path, n=n)
    create(tmp_path, n=20)
    assert computed == [10, 20, 30]
    changed = SIMULATOR.rows(10, 20, seed=1)
    (tmp_path / "shard-000000010-000000020.safetensors").unlink()
    SimulationStore.write(tmp_path, 10, 20, changed, **ORIGIN)
    old = SimulationStore.open(tmp_path)
    assert not old.is_intact()
    new = create(tmp_path, n=30)
    assert computed == [10, 20, 30, 30]
    assert new.is_intact()
    assert new.content_hash != old.content_hash
    assert new.manifest["extents"].keys() == {"10", "30"}
    np.testing.assert_array_equal(new.first(20).load()["x"][10:], changed["x"])


@pytest.mark.parametrize("names", [None, ["x"], ["ok", "k"]])
def test_some_rows_are_read_without_the_others(tmp_path, monkeypatch, names):
    """Rows from any to any are those of the table, of the variables asked for, and no more bytes are mapped
    than they have."""
    store, mapped, plain = create(tmp_path, n=25), [], np.memmap

    def spied(*arguments):
        mapped.append(plain(*arguments))
        return mapped[-1]

    monkeypatch.setattr(np, "memmap", spied)
    for start, stop in [(0, 25), (3, 4), (9, 11), (10, 20), (7, 7), (24, 25), (0, 0)]:
        mapped.clear()
        rows = store.rows(start, stop, names)
        same(
            rows,
            {
                name: value[start:stop]
                for name, value in SIMULATOR.rows(0, 25, seed=0).items()
                if names is None or name in names
            },
        )
        assert sum(value.nbytes for value in mapped) == sum(value.nbytes for value in rows.values())
        assert all(type(value) is np.ndarray for value in rows.values())
    with pytest.raises(DataError, match="Expected rows from 0 to 25"):
        store.rows(20, 26)
    (tmp_path / "shard-000000010-000000020.safetensors").write_bytes(b"short")
    with pytest.raises(DataError, match=r"shard-000000010-000000020.safetensors is missing or damaged"):
        store.rows(9, 11)


def test_rows_without_values_are_kept(tmp_path):
    """A variable of shape (n, 0), one of several axes, and every type that simulators return come back."""
    types = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f8"]
    table = {f"v {dtype}": np.arange(12).reshape(2, 3, 2).astype(dtype) for dtype in types} | {
        "none": np.empty((2, 0))
    }
    store = SimulationStore.create(
        tmp_path, lambda start, stop: {name: value[start:stop] for name, value in table.items()}, 2, **ORIGIN
    )
    for name, value in store.load().items():
        np.testing.assert_array_equal(value, table[name])
        assert value.dtype == table[name].dtype.newbyteorder("=")


def test_parts_that_processes_share_make_the_store_of_create(tmp_path):
    """missing, write in any order, and finish give the store that create gives; finish names what is still
    missing."""
    missing = SimulationStore.missing(tmp_path / "parts", 25, **ORIGIN, rows_per_shard=10)
    assert missing == [(0, 10), (10, 20), (20, 25)]
    for start, stop in missing[::-2]:
        SimulationStore.write(tmp_path / "parts", start, stop, cheap(start, stop), **ORIGIN)
    with pytest.raises(
        DataError, match=r"Expected 25 simulations in .*, got no whole shard of rows 10 to 20. Write them"
    ):
        SimulationStore.finish(tmp_path / "parts", 25, **ORIGIN, rows_per_shard=10)
    assert SimulationStore.missing(tmp_path / "parts", 25, **ORIGIN, rows_per_shard=10) == [(10, 20)]
    SimulationStore.write(tmp_path / "parts", 10, 20, cheap(10, 20), **ORIGIN)
    assert not (tmp_path / "parts" / "manifest.json").exists()
    assert (
        SimulationStore.finish(tmp_path / "parts", 25, **ORIGIN, rows_per_shard=10).manifest
        == create(tmp_path / "create").manifest
    )


def test_any_changed_byte_of_a_shard_is_found(tmp_path):
    """Without a manifest, a change of any byte of a shard, in its header or its values, is noticed; that
    shard alone is missing."""
    for start, stop in ((0, 3), (3, 6)):
        SimulationStore.write(tmp_path, start, stop, cheap(start, stop), **ORIGIN)
    path = tmp_path / "shard-000000003-000000006.safetensors"
    content = path.read_bytes()
    for k in range(len(content)):
        path.write_bytes(content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :])
        shard = Shard.open(path)
        assert shard is None or not shard.is_whole(), k
    assert SimulationStore.missing(tmp_path, 6, **ORIGIN, rows_per_shard=2) == [(3, 6)]
    path.write_bytes(content)
    assert SimulationStore.missing(tmp_path, 6, **ORIGIN, rows_per_shard=2) == []


def test_overlapping_shards_are_used_where_they_are_whole(tmp_path):
    """Shards that two processes have cut differently serve together; rows are read once, and a broken one is
    covered by others."""
    for start, stop in ((0, 7), (0, 10), (5, 15), (9, 20)):
        SimulationStore.write(tmp_path, start, stop, cheap(start, stop), **ORIGIN)
    store = SimulationStore.finish(tmp_path, 18, **ORIGIN)
    same(store.load(), cheap(0, 18))
    ends = [0, *(stop for _, stop in (entry["rows"] for entry in store.manifest["shards"]))]
    assert [entry["rows"] for entry in store.manifest["shards"]] == [list(pair) for pair in pairwise(ends)]
    (tmp_path / "shard-000000005-000000015.safetensors").unlink()
    assert SimulationStore.missing(tmp_path, 18, **ORIGIN) == []
    mended = SimulationStore.finish(tmp_path, 18, **ORIGIN)
    assert mended.is_intact()
    assert mended.content_hash == store.content_hash
    assert json.loads((tmp_path / "manifest.json").read_text()) == mended.manifest
    assert SimulationStore.finish(tmp_path, 20, **ORIGIN).num_simulations == 20
