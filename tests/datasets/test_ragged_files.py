"""Data sets of different lengths in files: one or many a file, three formats."""

import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

import sbi_models as bf
from sbi_models.datasets import (
    DiskBatches,
    SimulationFiles,
    SimulationStore,
    from_arrays,
    read_file,
    to_arrays,
)
from sbi_models.errors import DataError
from sbi_models.ragged import as_ragged, lengths, real_or_ragged, same_bits

NAMES = ("mu", "x")


def sets(mu, rng):
    return {"x": rng.normal(mu, size=(rng.integers(1, 6), 1))}


def prior(rng):
    return {"mu": rng.normal(size=1)}


SIMULATOR = bf.make_simulator([prior, sets])


def write(path, variables):
    """Write a file in the format of its ending."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({name: list(value) for name, value in variables.items()}))
    elif path.suffix == ".npz":
        np.savez(path, **to_arrays(variables))
    else:
        save_file(to_arrays(variables), path)


def groups(*sizes):
    return as_ragged([np.full((size, 2), float(size)) for size in sizes])


@pytest.mark.parametrize("suffix", [".pkl", ".npz", ".safetensors"])
def test_files_give_the_variables_back(tmp_path, suffix):
    """Sets with an empty one among them, groups, and plain arrays come back from every format to the bit."""
    variables = {
        "sets": groups(3, 0, 5),
        "groups": as_ragged([groups(1, 2), groups(4), groups(2, 2, 0)]),
        "plain": np.arange(6.0).reshape(3, 2),
    }
    write(tmp_path / f"one{suffix}", variables)
    read = read_file(tmp_path / f"one{suffix}")
    assert sorted(read) == sorted(variables)
    for name, value in variables.items():
        assert same_bits(real_or_ragged(list(value), name), real_or_ragged(list(read[name]), name))


def test_pickles_and_functions_give_arrays_of_objects_and_lists(tmp_path):
    """What a simulator returned can be pickled as it is; load_fn may return lists or flat arrays."""
    data = SIMULATOR.sample(9, seed=1)
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(data))
    for read in (
        read_file(path),
        read_file(path, lambda _: {name: list(value) for name, value in data.items()}),
        read_file(path, lambda _: to_arrays(data)),
    ):
        assert all(map(same_bits, read["x"], data["x"]))


def test_arrays_of_one_length_stay_as_they_are():
    """Data sets of one length need no offsets, and lists of them are an array."""
    assert list(to_arrays({"x": [np.zeros((3, 1))] * 2, "mu": np.zeros((2, 1))})) == ["x", "mu"]
    assert from_arrays({"x": np.zeros((2, 1))})["x"].shape == (2, 1)
    same = from_arrays({"x": np.zeros((6, 1)), "x/offsets": np.array([0, 3, 6])})
    assert same["x"].shape == (2, 3, 1)
    assert list(from_arrays({"y/offsets": np.zeros(3)})) == ["y/offsets"]


@pytest.mark.parametrize(
    ("offsets", "got"),
    [
        (np.array([0, 4, 3, 8]), r"int64 of shape \(4,\): \[0 4 3 8\]"),
        (np.array([0, 3, 7]), r"rise from 0 to 8"),
        (np.array([1, 3, 8]), r"\[1 3 8\]"),
        (np.array([0.0, 8.0]), r"float64"),
        (np.array([[0, 8]]), r"shape \(1, 2\)"),
    ],
    ids=["fall", "end early", "begin late", "floats", "two axes"],
)
def test_bad_offsets_are_an_error_with_the_file(tmp_path, offsets, got):
    """Offsets that are none name the array, the file, and the function that writes them."""
    np.savez(tmp_path / "bad.npz", **{"x": np.zeros((8, 1)), "x/offsets": offsets})
    with pytest.raises(DataError, match=rf"'x/offsets of .*bad\.npz'.*{got}.*to_arrays"):
        read_file(tmp_path / "bad.npz")


def test_every_simulation_of_any_length_is_in_one_batch(tmp_path):
    """An epoch over files of many simulations has each row once, with its own parameters."""
    data = SIMULATOR.sample(30, seed=1)
    for k, (start, stop) in enumerate([(0, 4), (4, 5), (5, 30)]):
        write(tmp_path / f"{k}.npz", {name: value[start:stop] for name, value in data.items()})
    files = SimulationFiles.find(tmp_path, "*.npz", NAMES, any_length=["x"])
    assert files.per_file == "many"
    rows = [
        (float(mu[0]), x.tobytes())
        for chunk in DiskBatches(files, batch_size=8, seed=1)
        for mu, x in zip(chunk["mu"], chunk["x"], strict=True)
    ]
    assert sorted(rows) == sorted(
        (float(mu[0]), x.tobytes()) for mu, x in zip(data["mu"], data["x"], strict=True)
    )


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_files_of_one_simulation_each_may_differ_in_length(tmp_path, suffix):
    """Files whose x has another number of elements are data sets of other lengths, groups among them."""
    data = SIMULATOR.sample(12, seed=1)
    for k in range(12):
        np.savez(tmp_path / f"{k:02d}.npz", mu=data["mu"][k], x=data["x"][k])
        (tmp_path / f"{k:02d}.pkl").write_bytes(pickle.dumps({"mu": data["mu"][k], "x": data["x"][k]}))
    files = SimulationFiles.find(tmp_path, f"*{suffix}", NAMES, per_file="one", any_length=["x"])
    read = files.read(range(12))
    assert lengths(read["x"]).tolist() == lengths(data["x"]).tolist()
    np.testing.assert_array_equal(read["mu"], data["mu"])
    other = tmp_path / "12.npz"
    np.savez(other, mu=data["mu"][0], x=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"Expected 'x' of shape \(\d, 1\).*got \(3, 2\) in .*12.npz"):
        SimulationFiles.find(tmp_path, "*.npz", NAMES, per_file="one", any_length=["x"])
    with pytest.raises(DataError, match="'x' of shape"):
        SimulationFiles.find(tmp_path, "0*.npz", NAMES, per_file="one")


def test_groups_are_one_simulation_a_file(tmp_path):
    """A file with groups of elements and their offsets is one data set of groups."""
    variables = [groups(1, 2), groups(4), groups(2, 2, 0)]
    for k, value in enumerate(variables):
        np.savez(tmp_path / f"{k}.npz", mu=np.zeros(1), **to_arrays({"x": list(value)}))
    read = SimulationFiles.find(tmp_path, "*.npz", NAMES, per_file="one", any_length=["x"]).read([0, 2])
    assert [[len(group) for group in part] for part in read["x"]] == [[1, 2], [2, 2, 0]]


def test_nan_in_a_data_set_is_refused_with_its_row(tmp_path):
    """NaN names the row and the file, unless values may be missing; inf always does."""
    for value, fine in ((np.nan, ["x"]), (np.inf, [])):
        x = [np.zeros((2, 1)), np.full((3, 1), value)]
        np.savez(tmp_path / "bad.npz", mu=np.zeros((2, 1)), **to_arrays({"x": x}))
        with pytest.raises(DataError, match=r"in 1 of 2 rows \(rows 1\) of variable 'x' in .*bad.npz"):
            SimulationFiles.find(tmp_path, "*.npz", NAMES, any_length=["x"])
        for may_miss in fine:
            SimulationFiles.find(tmp_path, "*.npz", NAMES, any_length=["x"], may_miss=[may_miss])


def test_batches_do_not_depend_on_where_simulations_lie(tmp_path):
    """A store and files of as many rows as its blocks have one content each, whatever the shards."""

    def rows(start, stop):
        return SIMULATOR.rows(start, stop, seed=1, progress=False)

    stores = [
        SimulationStore.create(tmp_path / f"{n}", rows, 40, seed=1, fingerprint="f", rows_per_shard=n)
        for n in (40, 3)
    ]
    chunks = []
    for store in stores:
        files = SimulationFiles.find(store, "", NAMES, any_length=["x"])
        batches = DiskBatches(files, 8, seed=1, windows=[np.arange(0, 40, 2), np.arange(20)])
        chunks.append([member for chunk in batches for member in chunk])
        fingerprint = batches.fingerprint
    assert (
        fingerprint
        == DiskBatches(
            SimulationFiles.find(stores[0], "", NAMES, any_length=["x"]),
            8,
            1,
            [np.arange(0, 40, 2), np.arange(20)],
        ).fingerprint
    )
    for one, other in zip(*chunks, strict=True):
        assert all(map(same_bits, one["x"], other["x"]))
        np.testing.assert_array_equal(one["mu"], other["mu"])
