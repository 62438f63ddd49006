"""Data files that were written to hurt, or damaged: refused as such, soon, and without more memory than they
have bytes for."""

import io
import os
import pickle
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import data_mutations
from data_mutations import Called, npy

from sbi_models.datasets import SimulationStore, files, read_file
from sbi_models.datasets.pickled import read_pickle
from sbi_models.errors import DataError
from sbi_models.pipeline.experiment.observations import read_observations

MOST_SECONDS, MOST_BYTES = 8.0, 2**28
KINDS = [kind for kind in data_mutations.KINDS if kind != "csv"]


def test_honest_pickles_come_back(tmp_path: Path) -> None:
    """Arrays of every type, order and protocol, numbers, lists and dicts are what they were."""
    whole = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "part": np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
        "big-endian": np.arange(3, dtype=">i4"),
        "bool": np.array([True, False]),
        "half": np.float16([1.5]),
        "none": np.zeros((0, 3)),
        "scalar": np.float32(2.5),
        "list": [[1, 2.5], [3, 4]],
        "number": -(2**70),
    }
    for protocol in range(6):
        read = read_pickle(pickle.dumps(whole, protocol=protocol))
        for name, value in whole.items():
            np.testing.assert_array_equal(read[name], value)
            if isinstance(value, np.ndarray):
                assert read[name].dtype == value.dtype
                assert read[name].flags.writeable


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6))
def test_a_hostile_file_is_refused_or_an_array_of_its_size(tmp_path: Path, seed: int) -> None:
    """Archives, pickles, safetensors and stores: DataError and nothing else, soon, or arrays that are not
    larger than files may come to."""
    kind = KINDS[seed % len(KINDS)]
    path = data_mutations.write(kind, seed, tmp_path, bombs=False)
    started = time.process_time()
    try:
        read = SimulationStore.open(path).load() if kind == "store" else read_file(path)
    except DataError:
        read = {}
    assert time.process_time() - started < MOST_SECONDS
    assert sum(value.nbytes for value in read.values()) < MOST_BYTES
    assert all(max(value.shape, default=0) < MOST_BYTES for value in read.values())


BOMB: list[object] = [0.0] * 10
for _ in range(10):
    BOMB = [BOMB] * 10
RECONSTRUCT = np.zeros(0).__reduce__()[0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (BOMB, r"the lists of 'theta' share parts, and hold 1e\+11 numbers"),
        (
            Called(np.ndarray, (10**12,), np.dtype("f8")),
            r"it calls numpy.ndarray, which makes arrays of any size out of nothing",
        ),
        (Called(np.ndarray, (10**9,), np.dtype("f8"), b"\0" * 8, 0, (0,)), r"it calls numpy.ndarray"),
        (
            Called(
                RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (10**9,), np.dtype("f8"), False, b"\0" * 80)
            ),
            r"8000000000 bytes, with 80",
        ),
        (Called(RECONSTRUCT, np.ndarray, (10**9,), b"b"), r"an array without content"),
        (np.zeros(3, dtype=[("a", "f8")]), r"only plain types are read"),
    ],
)
def test_bombs_in_pickles(tmp_path: Path, value: object, message: str) -> None:
    """Lists that double, arrays over memory that is not there, strides of zero, and shapes that lie are
    refused in words."""
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"theta": value}, protocol=4))
    with pytest.raises(DataError, match=message):
        read_file(tmp_path / "x.pkl")


def test_a_pickle_with_a_memo_of_any_index_takes_no_memory(tmp_path: Path) -> None:
    """Index 4 294 967 295 of the memo is an entry of a dict, not a list of 32 GB."""
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    assert read_file(tmp_path / "x.pkl") == {}


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_bombs_in_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that comes to more than is small and a hundred times its size, one that lies about shapes,
    and objects, are refused."""
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(2**18))
    path = archive(tmp_path / "bomb.npz", x=zeros.getvalue())
    assert read_file(path)["x"].shape == (2**18,)
    with monkeypatch.context() as patch:
        patch.setattr(files, "_SMALL", 2**20)
        with pytest.raises(DataError, match=r"comes to 2.1e\+06 bytes in memory, more than 1e\+06"):
            read_file(path)
    with pytest.raises(
        DataError, match=r"says that it has shape \(1000000000000,\), of 8000000000000 bytes, and has 80"
    ):
        read_file(archive(tmp_path / "lie.npz", x=npy((10**12,), "<f8", b"\0" * 80)))
    with pytest.raises(DataError, match=r"has shape \(0, 1000000000000\)"):
        read_file(archive(tmp_path / "empty.npz", x=npy((0, 10**12), "<f8", b"")))
    with pytest.raises(DataError, match="it holds Python objects"):
        read_file(archive(tmp_path / "objects.npz", x=npy((2,), "|O", pickle.dumps([1, 2]))))


def test_pipes_and_folders_are_no_files(tmp_path: Path) -> None:
    """A pipe, which nobody writes to, is refused and not waited for."""
    for name in ("x.npz", "x.pkl", "x.safetensors", "x.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="no file"):
            read_observations(tmp_path / name, "x", (5, 1)) if name == "x.csv" else read_file(tmp_path / name)


ODD = {
    "endless line": "1," * 100_000,
    "open quote": '"' + "1" * 200_000,
    "endless cell": "1" * 20_000 + ",1,1,1,1\n",
    "underscore": "1_000,2,3,4,5\n",
    "not finite": "nan,inf,1,1,1\n1,2,3,4,5\n",
    "one column": "1\n" * 2_000,
}


@pytest.mark.parametrize("content", ODD.values(), ids=list(ODD))
def test_odd_csv_files_are_refused(tmp_path: Path, content: str) -> None:
    """Endless lines and cells, numbers with underscores, and what is not finite."""
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DataError, match=r"x\.csv"):
        read_observations(tmp_path / "x.csv", "x", (5, 1))
