"""Data sets of different lengths in a simulation store, whatever its cut into shards."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from sbi_models.datasets import SimulationStore, num_shared
from sbi_models.datasets.schemas import merged
from sbi_models.datasets.shards import Shard
from sbi_models.errors import DataError
from sbi_models.ragged import as_ragged, is_ragged, leaves, real_or_ragged, same_bits
from sbi_models.simulators import make_simulator


def sets(mu, rng):
    return {"x": rng.normal(mu, size=(rng.integers(0, 6), 2))}


def groups(mu, rng):
    return {"x": [rng.normal(mu, size=(rng.integers(1, 4), 2)) for _ in range(rng.integers(1, 3))]}


def prior(rng):
    return {"mu": rng.normal(size=1)}


SETS, GROUPS = make_simulator([prior, sets]), make_simulator([prior, groups])


def create(folder, simulator, n=30, rows_per_shard=7, seed=1):
    def rows(start, stop):
        return simulator.rows(start, stop, seed=seed, progress=False)

    return SimulationStore.create(folder, rows, n, seed=seed, fingerprint="f", rows_per_shard=rows_per_shard)


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert same_bits(real_or_ragged(list(value), name), real_or_ragged(list(other[name]), name))


@pytest.mark.parametrize("simulator", [SETS, GROUPS], ids=["sets", "groups"])
def test_a_store_gives_the_simulations_back_for_any_cut(tmp_path, simulator):
    """Shards of 1, 2, 7 and 40 rows hold the same data, hash and keys of rows; open axes have no length."""
    expected = simulator.rows(0, 30, seed=1, progress=False)
    stores = [create(tmp_path / f"{size}", simulator, rows_per_shard=size) for size in (1, 2, 7, 40)]
    for store in stores:
        same(store.load(), expected)
        same(store.rows(3, 17), {name: value[3:17] for name, value in expected.items()})
        assert store.content_hash == stores[0].content_hash
        assert store.first(9).content_hash == stores[0].first(9).content_hash
        np.testing.assert_array_equal(store.row_keys(), stores[0].row_keys())
    levels = 1 if simulator is SETS else 2
    assert SimulationStore.open(tmp_path / "7").manifest["schema"]["x"] == {
        "dtype": "float64",
        "shape": [None] * levels + [2],
    }
    assert num_shared(stores[0].row_keys(), stores[3].row_keys()[5:25]) == 20


def test_content_hashes_tell_lengths_from_numbers(tmp_path):
    """The same numbers cut elsewhere have another hash; data sets of one length have that of an array."""
    values = np.arange(12.0).reshape(6, 2)

    def hash_of(name, parts):
        rows = {"x": as_ragged(parts) if len({len(part) for part in parts}) > 1 else np.stack(parts)}
        return SimulationStore.create(
            tmp_path / name,
            lambda start, stop: {"x": rows["x"][start:stop]},
            len(parts),
            seed=0,
            fingerprint="f",
        ).content_hash

    assert hash_of("a", [values[:2], values[2:]]) != hash_of("b", [values[:3], values[3:5], values[5:]])
    assert hash_of("c", [values[:2], values[2:]]) != hash_of("d", [values[:4], values[4:]])
    plain = SimulationStore.create(
        tmp_path / "plain",
        lambda start, stop: {"x": values.reshape(2, 3, 2)[start:stop]},
        2,
        seed=0,
        fingerprint="f",
    )
    assert plain.content_hash == hash_of("e", [values[:3], values[3:]])
    objects = as_ragged([values[:3], values[3:]])
    ragged = SimulationStore.create(
        tmp_path / "f",
        lambda start, stop: {"x": objects[start:stop]},
        2,
        seed=0,
        fingerprint="f",
        rows_per_shard=1,
    )
    assert ragged.content_hash == plain.content_hash


def test_a_shard_is_flat_arrays_with_offsets_that_any_reader_of_safetensors_takes(tmp_path):
    """Of 7 data sets the file has the elements, their offsets, and the parameters; rows are mapped."""
    create(tmp_path, SETS)
    path = tmp_path / "shard-000000007-000000014.safetensors"
    arrays, expected = load_file(path), SETS.rows(7, 14, seed=1, progress=False)
    assert sorted(arrays) == ["mu", "x", "x/offsets"]
    assert arrays["x/offsets"].tolist() == [0, *np.cumsum([len(part) for part in expected["x"]])]
    np.testing.assert_array_equal(arrays["x"], np.concatenate(list(expected["x"])))
    some = Shard.open(path).rows(9, 12)["x"]
    same({"x": some}, {"x": expected["x"][2:5]})
    full = next(part for part in some if part.size)
    base = full
    while not isinstance(base, np.memmap):
        base = base.base
    assert not full.flags.writeable


def test_plain_shards_beside_ragged_ones_are_of_one_variable(tmp_path):
    """Shards in which all lengths happen to be equal are plain files; the manifest says that they differ."""

    def rows(start, stop):
        return {"x": np.full((stop - start, 2 + start // 5, 3), float(start))}

    store = SimulationStore.create(tmp_path, rows, 10, seed=0, fingerprint="f", rows_per_shard=5)
    assert store.manifest["schema"]["x"]["shape"] == [None, 3]
    assert [part.shape for part in store.load()["x"]] == [(2, 3)] * 5 + [(3, 3)] * 5
    assert not is_ragged(store.rows(0, 5)["x"])
    extended = SimulationStore.create(tmp_path, rows, 15, seed=0, fingerprint="f", rows_per_shard=5)
    assert [len(part) for part in extended.load()["x"]] == [2] * 5 + [3] * 5 + [4] * 5


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ([3, 1], [5, 1], [None, 1]),
        ([None, 1], [5, 1], [None, 1]),
        ([2, 3, 1], [4, 3, 1], [None, 3, 1]),
        ([2, 3, 1], [2, 4, 1], [None, None, 1]),
        ([None, 3, 1], [None, 4, 1], [None, None, 1]),
        ([0, 1], [None, 7], [None, 7]),
        ([3], [5], None),
        ([3, 1], [3, 2], None),
        ([3, 1], [3], None),
    ],
)
def test_shapes_of_shards_differ_in_lengths_alone(one, other, both):
    """Elements of other widths, and vectors of other lengths, are no variable of one name."""
    schemas = [{"x": {"dtype": "float64", "shape": shape}} for shape in (one, other)]
    for first, second in (schemas, schemas[::-1]):
        assert merged(first, second) == (None if both is None else {"x": {"dtype": "float64", "shape": both}})
    assert merged(schemas[0], {"x": {"dtype": "float32", "shape": [9, *one[1:]]}}) is None or one[0] == 0


def test_other_widths_and_taken_names_are_refused(tmp_path):
    """Elements of other widths in a shard, and a variable with the name of offsets, are errors."""

    def rows(start, stop):
        return {"x": np.zeros((stop - start, 3, 1 + start // 5))}

    with pytest.raises(DataError, match="but for the number of elements of sets and series"):
        SimulationStore.create(tmp_path / "a", rows, 10, seed=0, fingerprint="f", rows_per_shard=5)
    taken = {"x": as_ragged([np.zeros((1, 1)), np.zeros((2, 1))]), "x/offsets": np.zeros((2, 1))}
    with pytest.raises(DataError, match=r"'x/offsets' beside the ragged variable 'x'.*Rename it"):
        SimulationStore.create(tmp_path / "b", lambda start, stop: taken, 2, seed=0, fingerprint="f")
    plain = {"x": np.zeros((2, 1)), "x/offsets": np.ones((2, 1))}
    store = SimulationStore.create(tmp_path / "c", lambda start, stop: plain, 2, seed=0, fingerprint="f")
    same(store.load(), plain)


def test_damaged_offsets_are_an_error(tmp_path):
    """Offsets that fall are refused by readers of rows, and the shard is not whole."""
    create(tmp_path, SETS)
    path = tmp_path / "shard-000000007-000000014.safetensors"
    shard, content = Shard.open(path), path.read_bytes()
    place = shard.begin + shard.places["x/offsets"].offset
    path.write_bytes(content[: place + 8] + (99).to_bytes(8, "little") + content[place + 16 :])
    with pytest.raises(DataError, match=r"x/offsets of .*shard-000000007-000000014"):
        Shard.open(path).rows(7, 14)
    assert not Shard.open(path).is_whole()
    assert not SimulationStore.open(tmp_path).is_intact()
    same(create(tmp_path, SETS).load(), SETS.rows(0, 30, seed=1, progress=False))


def test_repeated_simulations_of_any_length_are_found(tmp_path):
    """Rows that begin anew in the second half are refused, also without a parameter beside them."""
    rows = {"x": GROUPS.rows(0, 40, seed=1, progress=False)["x"]}
    with pytest.raises(DataError, match="got 20 that are equal"):
        SimulationStore.create(
            tmp_path,
            lambda start, stop: {name: value[np.arange(start, stop) % 20] for name, value in rows.items()},
            40,
            seed=0,
            fingerprint="f",
            rows_per_shard=20,
        )


@pytest.mark.parametrize("rows_per_shard", [3, 5])
@pytest.mark.parametrize("levels", [1, 2])
def test_data_sets_without_elements_and_of_whole_numbers_are_of_one_variable(
    tmp_path, levels, rows_per_shard
):
    """Empty lists, integers among floats, and groups without elements take type and width of the others."""
    parts = [np.empty(0), np.ones((2, 3), dtype=int), np.full((1, 3), 0.5), np.empty((0, 3)), np.ones((4, 3))]
    rows = as_ragged(parts if levels == 1 else [as_ragged([part, part[:0]]) for part in parts])
    store = SimulationStore.create(
        tmp_path,
        lambda start, stop: {"x": rows[start:stop]},
        5,
        seed=0,
        fingerprint="f",
        rows_per_shard=rows_per_shard,
    )
    assert store.manifest["schema"]["x"] == {"dtype": "float64", "shape": [None] * levels + [3]}
    assert [sum(leaf.size for leaf in leaves(part)) for part in store.load()["x"]] == [0, 6, 3, 0, 12]


def test_a_manifest_says_which_axes_are_open(tmp_path):
    """Null stands for an axis of any length, and nowhere else."""
    create(tmp_path, SETS)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    assert content["schema"]["x"]["shape"] == [None, 2]
    content["schema"]["x"]["shape"] = [2, None]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="'x' has no type and shape"):
        SimulationStore.open(tmp_path)
