"""Observation files: two layouts, and a clear line for everything else."""

from pathlib import Path

import numpy as np
import pytest

from sbi_models.errors import DataError
from sbi_models.pipeline.experiment.observations import read_observations
from sbi_models.pipeline.studies.michelson import STUDY
from sbi_models.simulators.benchmarks.michelson import DATA


def _write(folder: Path, text: str) -> Path:
    path = folder / "observations.csv"
    path.write_text(text)
    return path


def test_michelson_data_are_five_experiments_of_twenty() -> None:
    """The data in the package have the means and the grand mean that are in print (Stigler 1977): 852.4."""
    labels, observations = STUDY.observations()
    assert labels == ["1", "2", "3", "4", "5"]
    assert observations["x"].shape == (5, 20, 1)
    np.testing.assert_allclose(observations["x"].mean(axis=(1, 2)), [909.0, 856.0, 845.0, 820.5, 831.5])
    assert observations["x"].mean() == pytest.approx(852.4)


def test_long_and_wide_layouts_agree(tmp_path: Path) -> None:
    """The same numbers as one row a measurement, in any order, and as one row a data set are the same
    observations."""
    values = np.arange(6.0).reshape(2, 3)
    rows = [f"{name},{k},{values[i, k]}" for i, name in enumerate("ab") for k in range(3)]
    labels, long = read_observations(
        _write(tmp_path, "set,position,value\n" + "\n".join(reversed(rows)) + "\n"), "x", (3, 1)
    )
    assert labels == ["b", "a"]
    np.testing.assert_array_equal(long[::-1, :, 0], values)
    wide_text = "\n".join(",".join(map(str, row)) for row in values)
    labels, wide = read_observations(_write(tmp_path, "\n" + wide_text + "\n\n"), "y", (3,))
    assert labels == ["1", "2"]
    np.testing.assert_array_equal(wide, values)


def test_wide_rows_of_sets_keep_their_order(tmp_path: Path) -> None:
    """A row of 20 numbers is one data set of shape (20, 1)."""
    values = np.linspace(700, 900, 40).reshape(2, 20)
    _, wide = read_observations(
        _write(tmp_path, "\n".join(",".join(map(str, row)) for row in values)), "x", (20, 1)
    )
    np.testing.assert_array_equal(wide[:, :, 0], values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1\n1,2\n", "expected 3 columns"),
        ("1,1,850,9\n", "got 4 columns"),
        ("1;850\n2;900\n", "got 1 column. Columns are separated by commas"),
        ("1,1,850\n1,2\n", "rows of 2 and 3"),
        ("experiment,run,speed\n", "no numbers"),
        ("", "no numbers"),
        ("1,1,850\n1,2,nan\n", "line 2: expected finite numbers, got 'nan'"),
        ("1,1,850\n1,2,\n", "line 2: expected finite numbers, got ''"),
        ("1,1,850\n1,2,fast\n", "got 'fast'"),
        ("1,1,850\n1,2,inf\n", "got 'inf'"),
        ("1,1,850\n1,2,851\n", "expected 20 rows in each data set, got 2 in '1'"),
    ],
)
def test_bad_files_are_named_with_a_cure(tmp_path: Path, text: str, message: str) -> None:
    """Wrong columns, ragged rows, nothing, NaN, text and a short data set are DataErrors that name the file
    and what was got."""
    path = _write(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_observations(path, "x", (20, 1))
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing file is a DataError with its name."""
    with pytest.raises(DataError, match=r"nothing\.csv: no such file"):
        read_observations(tmp_path / "nothing.csv", "x", (20, 1))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Binary content is a DataError, not a decoding traceback."""
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00\x81" * 10)
    with pytest.raises(DataError, match="not readable as CSV"):
        read_observations(path, "x", (20, 1))


def test_the_data_of_the_package_are_read_with_their_header() -> None:
    """The header line is not a data set."""
    labels, values = read_observations(DATA, "x", (20, 1))
    assert len(labels) == len(values) == 5


NOISE = np.random.default_rng(5).normal(size=(3, 10)).round(3)


def _csv(*rows: object) -> str:
    return "\n".join(",".join(map(str, row)) for row in rows)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ([0.5, 1.0, 1.5, 2.0], [[7.0, 8.0, 9.0, 10.0]]),
        ([400, 410, 420, 430], [[0.31, 0.28, 0.4, 0.1], [0.2, 0.33, 0.5, 0.6]]),
        (list(range(10)), NOISE.tolist()),
        ([0, 1], [[0.5, 2.0]]),
        ((10.0 ** -np.arange(10)).tolist(), NOISE.tolist()),
        (["t=1", "t=2", "t=3"], [[1, 2, 3], [2, 3, 4]]),
    ],
    ids=["times", "wavelengths", "numbers of pandas", "two of them", "unequal steps, falling", "names"],
)
def test_a_header_of_numbers_is_no_data_set(
    tmp_path: Path, header: list[float], data: list[list[float]]
) -> None:
    """Times, wavelengths and column numbers above the data sets are left out; all rows below them are
    read."""
    _, read = read_observations(_write(tmp_path, _csv(header, *data)), "x", (len(header),))
    np.testing.assert_array_equal(read, np.array(data, dtype=float))


@pytest.mark.parametrize(
    "data",
    [
        NOISE,
        [[3, 1, 4, 1], [2, 7, 1, 8]],
        [[1.5], [2.5]],
        [[1, 2, 4], [5, 3, 2]],
        [[3, 5, 9, 1]],
        [[1, 2], [2, 1]],
        [[89.7, 76.5, 65.3, 56.4, 48.7], [89.5, 71.9, 58.5, 48.5, 20.6]],
    ],
    ids=["noise", "counts", "one number", "three numbers", "one data set", "pairs", "decays"],
)
def test_a_first_data_set_is_no_header(tmp_path: Path, data: list[list[float]]) -> None:
    """Files without a header keep their first data set, whether of counts, of noise, of few numbers, or of
    decays that all fall."""
    _, read = read_observations(_write(tmp_path, _csv(*data)), "x", (len(data[0]),))
    np.testing.assert_array_equal(read, np.array(data, dtype=float))


@pytest.mark.parametrize(
    "rows",
    [
        [[10, 20, 30, 40], [3, 1, 0, 2]],
        [[0], [3], [5]],
        [[0, 1, 2], [3, 5, 1]],
        [[1.0, 2.5, 3.0, 7.0], [4.1, 2.0, 1.0, 0.5]],
    ],
    ids=["counts at times", "counts below 0", "three counts", "growth or times"],
)
def test_what_may_be_a_header_or_a_data_set_is_an_error(tmp_path: Path, rows: list[list[float]]) -> None:
    """Where the first line may be either, nothing is guessed: the cure is a header of names."""
    with pytest.raises(
        DataError,
        match=r"line 1: expected to see whether the first line is a data set or a header.*header of names",
    ):
        read_observations(_write(tmp_path, _csv(*rows)), "x", (len(rows[0]),))
    names = [f"x{k}" for k in range(len(rows[0]))]
    assert len(read_observations(_write(tmp_path, _csv(names, *rows)), "x", (len(rows[0]),))[1]) == len(rows)
