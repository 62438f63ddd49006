"""Simulations in files: every row once an epoch, one or many a file, several formats, and no program is ever
run."""

import os
import pickle
from itertools import chain

import numpy as np
import pytest
from safetensors.numpy import save_file

from sbi_models.datasets import DiskBatches, PreparedBatches, SimulationFiles, SimulationStore
from sbi_models.datasets import disk as disk_module
from sbi_models.errors import DataError

NAMES = ("theta", "x")


def rows(start, stop):
    """Simulations whose number can be read off each variable."""
    number = np.arange(start, stop, dtype=float)
    return {"theta": np.stack([number, -number], axis=1), "x": number[:, None, None] + np.zeros((1, 3, 1))}


def write(path, variables):
    """Write a file in the format of its ending."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(variables))
    elif path.suffix == ".npz":
        np.savez(path, **variables)
    else:
        save_file(variables, path)


def many(folder, sizes, suffix=".pkl"):
    """Files of so many simulations each."""
    start = 0
    for k, size in enumerate(sizes):
        write(folder / f"part-{k:03d}{suffix}", rows(start, start + size))
        start += size
    return start


def numbers(batches):
    """The numbers of the simulations of each batch; theta and x of a row belong together."""
    listed = []
    for batch in PreparedBatches(batches, lambda raw: raw):
        np.testing.assert_array_equal(batch["theta"][:, 0], batch["x"][:, 0, 0])
        np.testing.assert_array_equal(batch["theta"][:, 0], -batch["theta"][:, 1])
        listed.append(batch["theta"][:, 0].astype(int).tolist())
    return listed


@pytest.mark.parametrize("suffix", [".pkl", ".npz", ".safetensors"])
@pytest.mark.parametrize("in_memory", [1, 7, 32_768])
def test_every_simulation_is_in_one_batch_of_an_epoch(tmp_path, monkeypatch, suffix, in_memory):
    """Whatever the format and however few rows may be in memory, an epoch holds every row once, in whole
    batches but for the last."""
    monkeypatch.setattr(disk_module, "_ROWS_IN_MEMORY", in_memory)
    total = many(tmp_path, [5, 1, 8, 3], suffix)
    batches = DiskBatches(SimulationFiles.find(tmp_path, f"*{suffix}", NAMES), batch_size=4, seed=1)
    epoch = numbers(batches)
    assert sorted(chain(*epoch)) == list(range(total))
    assert [len(batch) for batch in epoch] == [4, 4, 4, 4, 1]
    assert len(batches) == 5


def test_one_simulation_a_file_is_found_out(tmp_path):
    """Files without a leading axis are one simulation each; scalars are read too."""
    for k in range(9):
        write(
            tmp_path / f"{k}.pkl",
            {name: value[0] for name, value in rows(k, k + 1).items()} | {"s": float(k)},
        )
    files = SimulationFiles.find(tmp_path, "*.pkl", (*NAMES, "s"))
    assert files.per_file == "one"
    assert sorted(chain(*numbers(DiskBatches(files, batch_size=2, seed=0)))) == list(range(9))
    assert files.read([3])["s"].tolist() == [3.0]


def test_order_depends_on_seed_and_epoch_alone(tmp_path):
    """The same seed and epoch give the same batches, another epoch or seed others; rows of several files meet
    in a batch."""
    many(tmp_path, [50, 50])
    files = SimulationFiles.find(tmp_path, "*.pkl", NAMES)
    batches, alike, other = (DiskBatches(files, batch_size=10, seed=seed) for seed in (1, 1, 2))
    first = numbers(batches)
    assert first == numbers(batches) == numbers(alike)
    assert first != numbers(other)
    batches.set_epoch(1)
    assert first != numbers(batches)
    assert any(min(batch) < 50 <= max(batch) for batch in first)


def test_a_simulation_store_is_read_natively(tmp_path):
    """The folder of a simulation store is known by its manifest; its rows are those of the store, and other
    shards are not looked at."""
    SimulationStore.create(tmp_path, rows, 25, seed=0, fingerprint="f", rows_per_shard=10)
    SimulationStore.write(tmp_path, 25, 30, rows(25, 30), seed=0, fingerprint="f")
    files = SimulationFiles.find(tmp_path, "*.pkl", NAMES)
    assert files.per_file == "many"
    assert sum(files.rows) == 25
    np.testing.assert_array_equal(files.read(range(len(files.rows)))["x"], rows(0, 25)["x"])


@pytest.mark.parametrize("windows", [None, [np.arange(0, 37, 2), np.arange(1, 37, 3)]])
def test_batches_of_a_store_do_not_depend_on_its_cut(tmp_path, monkeypatch, windows):
    """Made at once, in three extensions, or the first rows of a larger one: the same batches in the same
    order, of all rows."""
    monkeypatch.setattr(disk_module, "_ROWS_OF_A_BLOCK", 4)
    monkeypatch.setattr(disk_module, "_ROWS_IN_MEMORY", 10)
    for folder, sizes in {"once": [37], "extended": [5, 12, 37], "larger": [50]}.items():
        for size in sizes:
            SimulationStore.create(tmp_path / folder, rows, size, seed=0, fingerprint="f", rows_per_shard=7)
    roots = tmp_path / "once", tmp_path / "extended", SimulationStore.open(tmp_path / "larger").first(37)
    once, extended, first = (
        DiskBatches(SimulationFiles.find(root, "", NAMES), 8, seed=3, windows=windows) for root in roots
    )
    assert once.fingerprint == extended.fingerprint == first.fingerprint
    for mine in (once, extended, first):
        mine.set_epoch(2)
    chunks = list(once)
    for theirs in (list(extended), list(first)):
        assert len(chunks) == len(theirs)
        for a, b in zip(chunks, theirs, strict=True):
            np.testing.assert_equal(a, b)
    if windows is None:
        assert sorted(chain(*numbers(once))) == list(range(37))


def test_a_damaged_store_is_refused_before_training(tmp_path):
    """A changed byte in a shard, a missing variable and NaN are errors that name the shard."""
    SimulationStore.create(tmp_path, rows, 25, seed=0, fingerprint="f", rows_per_shard=10)
    with pytest.raises(DataError, match=r"got no 'y' in .*shard-000000000-000000010"):
        SimulationFiles.find(tmp_path, "*.pkl", ("theta", "y"))
    path = tmp_path / "shard-000000010-000000020.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    with pytest.raises(DataError, match=r"shard-000000010-000000020.safetensors is missing or damaged"):
        SimulationFiles.find(tmp_path, "*.pkl", NAMES)
    bad = {"theta": np.array([[0.0], [np.nan], [1.0]])}
    SimulationStore.create(tmp_path / "nan", lambda start, stop: bad, 3, seed=0, fingerprint="f")
    with pytest.raises(
        DataError, match=r"in 1 of 3 rows \(rows 1\) of variable 'theta' in .*shard-000000000-000000003"
    ):
        SimulationFiles.find(tmp_path / "nan", "*.pkl", ["theta"])


def test_any_format_is_read_by_a_function(tmp_path):
    """load_fn reads files of another format."""
    for k in range(4):
        np.savetxt(tmp_path / f"{k}.txt", rows(k, k + 1)["theta"][0])
    files = SimulationFiles.find(
        tmp_path, "*.txt", ["theta"], load_fn=lambda path: {"theta": np.loadtxt(path)}, per_file="one"
    )
    np.testing.assert_array_equal(files.read([2])["theta"], [[2.0, -2.0]])


def test_numpy_1_pickles_are_read_without_a_warning(tmp_path):
    """Pickles that name numpy.core, as NumPy 1 wrote them, in every protocol, are read."""
    for protocol in range(2, 6):
        content = pickle.dumps(rows(0, 2), protocol=protocol).replace(b"numpy._core", b"numpy.core")
        if protocol >= 4:
            content = pickle.dumps(rows(0, 2), protocol=protocol)
        (tmp_path / f"{protocol}.pkl").write_bytes(content)
    assert sum(SimulationFiles.find(tmp_path, "*.pkl", NAMES).rows) == 8


class Program:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_never_runs_a_program(tmp_path):
    """A pickle that would call os.system is refused, naming the file and load_fn, and the program does not
    run."""
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(rows(0, 2) | {"y": Program(tmp_path / "ran")}))
    with pytest.raises(DataError, match=r"bad\.pkl cannot be read: it holds posix\.system.*load_fn"):
        SimulationFiles.find(tmp_path, "*.pkl", NAMES)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), r"part-002\.pkl cannot be read"),
        (lambda path: path.write_bytes(b""), r"part-002\.pkl cannot be read"),
        (lambda path: write(path, {"theta": rows(0, 2)["theta"]}), r"got no 'x' in .*part-002\.pkl"),
        (
            lambda path: write(path, rows(0, 2) | {"x": np.zeros((2, 4, 1))}),
            r"'x' of shape \(3, 1\).*got \(4, 1\) in .*part-002\.pkl",
        ),
        (
            lambda path: write(path, rows(0, 2) | {"x": np.zeros((3, 3, 1))}),
            r"same number of simulations in every variable of .*part-002",
        ),
        (lambda path: path.write_bytes(pickle.dumps([1, 2])), r"part-002\.pkl to hold a dict"),
        (
            lambda path: path.write_bytes(pickle.dumps({"theta": np.array(["a"]), "x": np.zeros(2)})),
            r"Expected real numbers in variable 'theta'",
        ),
    ],
)
def test_a_bad_file_is_named_before_training(tmp_path, damage, message):
    """A truncated or empty file, a missing variable, other shapes, ragged lengths, no dict and text are
    errors that name the file."""
    many(tmp_path, [2, 2, 2, 2])
    damage(tmp_path / "part-002.pkl")
    with pytest.raises(DataError, match=message):
        SimulationFiles.find(tmp_path, "*.pkl", NAMES)


def test_no_folder_no_file_and_unknown_formats_are_named(tmp_path):
    """A missing folder, a pattern without files and an unknown ending are errors with a cure."""
    with pytest.raises(DataError, match="which is no folder"):
        SimulationFiles.find(tmp_path / "nowhere", "*.pkl", NAMES)
    with pytest.raises(DataError, match=r"No file in .* matches '\*\.pkl'.*pattern="):
        SimulationFiles.find(tmp_path, "*.pkl", NAMES)
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(DataError, match=r"\.pkl, \.npz or \.safetensors.*load_fn"):
        SimulationFiles.find(tmp_path, "*.txt", NAMES)


@pytest.mark.parametrize("in_memory", [1, 32_768])
def test_members_get_their_own_rows_and_all_of_them(tmp_path, monkeypatch, in_memory):
    """In an epoch each member has every row of its window once, counted through files of different sizes, and
    no other row."""
    monkeypatch.setattr(disk_module, "_ROWS_IN_MEMORY", in_memory)
    many(tmp_path, [5, 1, 8, 3])
    windows = [np.arange(0, 11), np.arange(6, 17), np.array([0, 5, 6, 13, 14, 16])]
    batches = DiskBatches(SimulationFiles.find(tmp_path, "*.pkl", NAMES), 2, seed=1, windows=windows)
    for epoch in range(2):
        batches.set_epoch(epoch)
        got = [[], [], []]
        for chunk in batches:
            for member, part in enumerate(chunk):
                got[member] += [] if part is None else part["theta"][:, 0].astype(int).tolist()
        assert [sorted(seen) for seen in got] == [window.tolist() for window in windows]
