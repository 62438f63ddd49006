"""Simulations on disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from stores import SIMULATOR, Rows, create, same

from sbi_models.datasets import SimulationStore
from sbi_models.errors import DataError

SHARDS = [f"shard-{start:09d}-{stop:09d}.safetensors" for start, stop in ((0, 10), (10, 20), (20, 25))]


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
    """Each shard is one call for its rows, so that memory holds one shard, and nothing else is left in the
    folder."""
    rows = Rows()
    store = create(tmp_path, rows=rows)
    assert rows.asked == [(0, 10), (10, 20), (20, 25)]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "manifest.json",
        *SHARDS,
    ]
    assert [shard["rows"] for shard in store.manifest["shards"]] == [[0, 10], [10, 20], [20, 25]]
    same(load_file(tmp_path / SHARDS[2]), SIMULATOR.rows(20, 25, seed=0))


def test_the_content_hash_names_the_content(tmp_path):
    """Stores of the same simulations have one hash, whatever their fingerprint; another seed, number or
    simulator gives another."""
    alike = {create(tmp_path / f"{k}").content_hash for k in range(8)} | {
        create(tmp_path / "other", fingerprint="g").content_hash
    }
    assert len(alike) == 1
    others = [
        create(tmp_path / "seed", seed=1),
        create(tmp_path / "number", n=24),
        create(tmp_path / "simulator", rows=lambda start, stop: {"x": np.zeros((stop - start, 1))}),
    ]
    assert len(alike | {store.content_hash for store in others}) == 4


def test_half_a_store_is_completed_without_repeating_shards(tmp_path):
    """After a kill that left two of three shards and no manifest, only the missing shard is computed, and the
    store is the same."""
    before = create(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(DataError, match="No simulation store"):
        SimulationStore.open(tmp_path)
    rows = Rows()
    after = create(tmp_path, rows=rows)
    assert rows.asked == [(10, 20)]
    assert after.content_hash == before.content_hash
    same(after.load(), SIMULATOR.rows(0, 25, seed=0))


def test_a_killed_write_leaves_no_shard(tmp_path):
    """A simulator that dies in the second shard leaves the first one whole, no manifest, and no half file
    under a shard's name."""

    def dies(start, stop):
        if start == 10:
            raise KeyboardInterrupt
        return Rows()(start, stop)

    with pytest.raises(KeyboardInterrupt):
        create(tmp_path, rows=dies)
    assert [path.name for path in tmp_path.iterdir()] == [SHARDS[0]]
    rows = Rows()
    same(create(tmp_path, rows=rows).load(), SIMULATOR.rows(0, 25, seed=0))
    assert rows.asked == [(10, 20), (20, 25)]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"n": 30}, [(25, 30)]),
        ({"n": 20}, []),
        ({"rows_per_shard": 5}, []),
        ({"n": 41, "rows_per_shard": 6}, [(25, 30), (30, 36), (36, 41)]),
    ],
)
def test_shards_of_the_same_origin_are_kept(tmp_path, change, asked):
    """Whatever their size, rows that are there are not computed again; the result is the one that a fresh
    store has."""
    create(tmp_path)
    rows = Rows()
    store = create(tmp_path, rows=rows, **change)
    assert rows.asked == asked
    same(store.load(), SIMULATOR.rows(0, change.get("n", 25), seed=0))
    assert store.content_hash == create(tmp_path / "fresh", **change).content_hash


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("change", [{"seed": 1}, {"fingerprint": "g"}])
def test_simulations_of_another_origin_are_refused(tmp_path, change, with_manifest):
    """Another seed or simulator in the folder is an error, saying which, before anything is computed; no byte
    is overwritten."""
    create(tmp_path)
    if not with_manifest:
        (tmp_path / "manifest.json").unlink()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    rows, origin = Rows(1), {"seed": 0, "fingerprint": "f"} | change
    message = (
        rf"of seed {origin['seed']} and simulator '{origin['fingerprint']}' in .*, "
        r"got .* of seed 0 and simulator 'f'. Name another folder"
    )
    for refused in (
        lambda: create(tmp_path, rows=rows, n=50, **change),
        lambda: SimulationStore.finish(tmp_path, 25, **origin),
        lambda: SimulationStore.check(tmp_path, **origin),
        lambda: SimulationStore.write(tmp_path, 0, 10, rows(0, 10), **origin),
    ):
        rows.asked.clear()
        with pytest.raises(DataError, match=message):
            refused()
    assert rows.asked == [(0, 10)]  # by the last line of the list above
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert SimulationStore.missing(tmp_path, 25, **origin, rows_per_shard=10) == [(0, 10), (10, 20), (20, 25)]


def _flip(path: Path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        Path.unlink,
    ],
    ids=["one bit", "truncated", "empty", "missing"],
)
def test_damaged_shards_are_found(tmp_path, harm):
    """One wrong bit, a short, empty or missing shard is found by is_intact and refused by load, with its name
    and a cure."""
    store = create(tmp_path)
    harm(tmp_path / SHARDS[1])
    assert not store.is_intact()
    with pytest.raises(
        DataError, match=r"shard-000000010-000000020.safetensors is missing or damaged: simulate again"
    ):
        SimulationStore.open(tmp_path).load()


@pytest.mark.parametrize(
    "harm", [_flip, lambda path: path.write_bytes(path.read_bytes()[:-1])], ids=["one bit", "truncated"]
)
@pytest.mark.parametrize("with_manifest", [True, False])
def test_damaged_shards_are_computed_again(tmp_path, harm, with_manifest):
    """create() over a folder with a short shard, or one with a wrong bit, computes that shard anew and no
    other."""
    before = create(tmp_path)
    harm(tmp_path / SHARDS[0])
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
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"schema_version": 1}))
    for refused in (lambda: SimulationStore.open(tmp_path), lambda: create(tmp_path)):
        with pytest.raises(
            DataError,
            match=r"has schema 1; this version reads 2. "
            r"Delete the folder, or name another, and simulate again",
        ):
            refused()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "shard-00000.safetensors").touch()
    with pytest.raises(DataError, match="has schema 1"):
        create(tmp_path / "old")
    for content in (
        "{",
        "[]",
        "{}",
        json.dumps(manifest | {"num_simulations": 24}),
        json.dumps(manifest | {"shards": [{"file": "a"}]}),
    ):
        path.write_text(content)
        with pytest.raises(DataError, match="is not readable"):
            SimulationStore.open(tmp_path)
    rows = Rows()
    assert create(tmp_path, rows=rows).manifest == manifest
    assert rows.asked == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            lambda start, stop: {"x": np.zeros(stop - start + 1)},
            r"Expected 10 simulations in every variable of rows 0 to 10, got \{'x': 11\}",
        ),
        (lambda start, stop: {}, "Expected 10 simulations in every variable"),
        (
            lambda start, stop: {"x": np.full(stop - start, "a")},
            "Expected real numbers of up to 64 bits, got <U1 in variable 'x'",
        ),
        (
            lambda start, stop: {"x": np.zeros(stop - start, "f4" if start else "f8")},
            r"Expected variables x float64 \(\) in rows 10 to 20",
        ),
    ],
)
def test_rows_that_are_no_table_are_refused(tmp_path, bad, message):
    """Unequal lengths, no variables, text, and types that change from shard to shard are errors as soon as
    they are seen."""
    with pytest.raises(DataError, match=message):
        create(tmp_path, rows=bad)


# --- a store of version 0.1

OLD = Path(__file__).parent / "store_of_0_1"


def rows_of_0_1(start, stop):
    """The table that version 0.1 wrote: five types, wide and narrow."""
    i = np.arange(start, stop)
    return {
        "theta": np.stack([i / 8, -i / 4], axis=1),
        "x": (i[:, None, None] + np.arange(3)[None, :, None]).astype("f4"),
        "k": i % 5,
        "ok": i % 3 == 0,
        "small": i.astype("i2"),
    }


def test_a_store_of_version_0_1_is_read_and_goes_on(tmp_path):
    """Its values, types and hash come back; more simulations are added to it without computing those that it
    has."""
    shutil.copytree(OLD, tmp_path / "store")
    store = SimulationStore.open(tmp_path / "store")
    same(store.load(), rows_of_0_1(0, 7))
    assert store.is_intact()
    assert store.content_hash == "8e919174a05c8270e4b7f2219281e0cbb7a5217354c9f29ec02ac937aacbffca"
    asked = []

    def rows(start, stop):
        asked.append((start, stop))
        return rows_of_0_1(start, stop)

    again = SimulationStore.create(tmp_path / "store", rows, 9, seed=3, fingerprint="first", rows_per_shard=4)
    assert (asked[0][0], asked[-1][1], sum(stop - start for start, stop in asked)) == (7, 9, 2)
    same(again.load(), rows_of_0_1(0, 9))


def test_shards_and_manifest_are_those_of_version_0_1(tmp_path):
    """The same simulations are the same files to the bit, so that version 0.1 reads them, too."""
    SimulationStore.create(tmp_path, rows_of_0_1, 7, seed=3, fingerprint="first", rows_per_shard=4)
    for file in OLD.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name
