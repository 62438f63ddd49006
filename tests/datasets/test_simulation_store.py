"""Simulations on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sbi_models.datasets import SimulationStore
from sbi_models.errors import DataError
from sbi_models.simulators import make_simulator

SIMULATOR = make_simulator(
    lambda rng: {"theta": rng.normal(size=2), "x": rng.normal(size=(3, 1)).astype("f4"), "k": rng.integers(9), "ok": rng.uniform() < 0.5}
)


class Rows:
    """The table of a seed, and which rows of it were asked for."""

    def __init__(self, seed=0):
        self.seed, self.asked = seed, []

    def __call__(self, start, stop):
        self.asked.append((start, stop))
        return SIMULATOR.rows(start, stop, seed=self.seed)


def create(folder, *, n=25, seed=0, fingerprint="f", rows_per_shard=10, rows=None):
    return SimulationStore.create(folder, rows or Rows(seed), n, seed=seed, fingerprint=fingerprint, rows_per_shard=rows_per_shard)


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert a[key].dtype == b[key].dtype


@pytest.mark.parametrize(("n", "rows_per_shard"), [(25, 10), (20, 10), (3, 10), (10, 1)])
def test_simulations_come_back_to_the_bit(tmp_path, n, rows_per_shard):
    """Written and read again, by this object or a new one, every variable has its values, shape and type."""
    store = create(tmp_path / "made" / "here", n=n, rows_per_shard=rows_per_shard)
    expected = SIMULATOR.rows(0, n, seed=0)
    same(store.load(), expected)
    opened = SimulationStore.open(str(tmp_path / "made" / "here"))
    same(opened.load(), expected)
    assert opened.num_simulations == n
    assert opened.is_intact()
    assert len(list(store.folder.glob("shard-*"))) == -(-n // rows_per_shard)


def test_shards_are_asked_for_in_turn(tmp_path):
    """Each shard is one call for its rows, so that memory holds one shard, and nothing else is left in the folder."""
    rows = Rows()
    store = create(tmp_path, rows=rows)
    assert rows.asked == [(0, 10), (10, 20), (20, 25)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", *(f"shard-0000{k}.safetensors" for k in range(3))]
    assert [shard["rows"] for shard in store.manifest["shards"]] == [[0, 10], [10, 20], [20, 25]]
    same(load_file(tmp_path / "shard-00002.safetensors"), SIMULATOR.rows(20, 25, seed=0))


def test_the_content_hash_names_the_content(tmp_path):
    """Stores of the same simulations have one hash, whatever their fingerprint; another seed, number or simulator gives another."""
    alike = {create(tmp_path / f"{k}").content_hash for k in range(8)} | {create(tmp_path / "other", fingerprint="g").content_hash}
    assert len(alike) == 1
    others = [
        create(tmp_path / "seed", seed=1),
        create(tmp_path / "number", n=24),
        create(tmp_path / "simulator", rows=lambda start, stop: {"x": np.zeros((stop - start, 1))}),
    ]
    assert len(alike | {store.content_hash for store in others}) == 4


def test_half_a_store_is_completed_without_repeating_shards(tmp_path):
    """After a kill that left two of three shards and no manifest, only the missing shard is computed, and the store is the same."""
    before = create(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "shard-00001.safetensors").unlink()
    with pytest.raises(DataError, match="No simulation store"):
        SimulationStore.open(tmp_path)
    rows = Rows()
    after = create(tmp_path, rows=rows)
    assert rows.asked == [(10, 20)]
    assert after.content_hash == before.content_hash
    same(after.load(), SIMULATOR.rows(0, 25, seed=0))


def test_a_killed_write_leaves_no_shard(tmp_path):
    """A simulator that dies in the second shard leaves the first one whole, no manifest, and no half file under a shard's name."""

    def dies(start, stop):
        if start == 10:
            raise KeyboardInterrupt
        return Rows()(start, stop)

    with pytest.raises(KeyboardInterrupt):
        create(tmp_path, rows=dies)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.safetensors"]
    rows = Rows()
    same(create(tmp_path, rows=rows).load(), SIMULATOR.rows(0, 25, seed=0))
    assert rows.asked == [(10, 20), (20, 25)]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"seed": 1}, [(0, 10), (10, 20), (20, 25)]),
        ({"fingerprint": "g"}, [(0, 10), (10, 20), (20, 25)]),
        ({"n": 30}, [(20, 30)]),
        ({"n": 20}, []),
        ({"rows_per_shard": 5}, [(0, 5), (5, 10), (10, 15), (15, 20), (20, 25)]),
    ],
)
def test_only_shards_of_the_same_origin_are_kept(tmp_path, change, asked):
    """Shards of another seed, simulator or size in the same folder are computed anew; a longer store keeps the beginning."""
    create(tmp_path)
    rows = Rows(change.get("seed", 0))
    store = create(tmp_path, rows=rows, **change)
    assert rows.asked == asked
    same(store.load(), SIMULATOR.rows(0, change.get("n", 25), seed=change.get("seed", 0)))
    assert store.content_hash == create(tmp_path / "fresh", **change).content_hash


def _flip(path: Path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [_flip, lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.write_bytes(b""), Path.unlink],
    ids=["one bit", "truncated", "empty", "missing"],
)
def test_damaged_shards_are_found(tmp_path, harm):
    """One wrong bit, a short, empty or missing shard is found by is_intact and refused by load, with its name and a cure."""
    store = create(tmp_path)
    harm(tmp_path / "shard-00001.safetensors")
    assert not store.is_intact()
    with pytest.raises(DataError, match=r"shard-00001.safetensors is missing or damaged: delete the folder"):
        SimulationStore.open(tmp_path).load()


@pytest.mark.parametrize("harm", [_flip, lambda path: path.write_bytes(path.read_bytes()[:-1])], ids=["one bit", "truncated"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_damaged_shards_are_computed_again(tmp_path, harm, with_manifest):
    """create() over a folder with a short shard, or one with a wrong bit, computes that shard anew and no other."""
    before = create(tmp_path)
    harm(tmp_path / "shard-00000.safetensors")
    if not with_manifest:
        (tmp_path / "manifest.json").unlink()
    rows = Rows()
    store = create(tmp_path, rows=rows)
    assert store.is_intact()
    assert store.content_hash == before.content_hash
    assert rows.asked == [(0, 10)]


def test_folders_without_a_readable_manifest_are_refused(tmp_path):
    """A missing folder, an unreadable manifest and another schema are refused with what was expected."""
    with pytest.raises(DataError, match=r"No simulation store at .*expected a folder with a manifest.json"):
        SimulationStore.open(tmp_path / "nowhere")
    create(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(DataError, match="has schema 99; this version reads 1"):
        SimulationStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is not readable"):
        SimulationStore.open(tmp_path)
