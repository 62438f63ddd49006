"""Observations of any finite numbers, in CSV and in npz files: read as they were written, or refused."""

import csv
import io

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sbi_models.datasets import read_file
from sbi_models.errors import DataError
from sbi_models.pipeline.experiment.observations import read_observations

FINITE = st.floats(allow_nan=False, allow_infinity=False)
FEW = st.integers(-3, 9).map(float)
LABELS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=6).filter(
    lambda label: label.strip() and not label.startswith("\ufeff")
)


def tables(most_columns=6):
    """Data sets (n, k) of one number or many, of wild numbers or of few."""
    shapes = st.tuples(st.integers(1, 6), st.integers(1, most_columns))
    return shapes.flatmap(lambda shape: arrays.arrays("f8", shape, elements=FINITE | FEW, fill=st.nothing()))


def as_csv(rows, *, quoting=csv.QUOTE_MINIMAL, end="\n"):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator=end).writerows(rows)
    return text.getvalue()


def is_number(text):
    try:
        return np.isfinite(float(text)) or True
    except ValueError:
        return False


@given(tables(), st.data())
def test_data_sets_in_rows_below_names(tmp_path, values, data):
    """One row a data set below a line of names, whatever the names, quotes, blank lines, spaces and ends of
    lines: every number comes back to the bit."""
    k = values.shape[1]
    names = data.draw(st.lists(LABELS.filter(lambda name: not is_number(name)), min_size=k, max_size=k))
    cells = [
        [f" {float(value)!r}" if data.draw(st.booleans()) else repr(float(value)) for value in row]
        for row in values
    ]
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    text = as_csv([names, *cells], quoting=quoting, end=data.draw(st.sampled_from(["\n", "\r\n"])))
    mark = data.draw(st.sampled_from(["", "\ufeff"]))
    (tmp_path / "x.csv").write_bytes((mark + text + data.draw(st.sampled_from(["", "\n", "\n\n"]))).encode())
    labels, read = read_observations(tmp_path / "x.csv", "x", (k,))
    assert labels == [str(i + 1) for i in range(len(values))]
    assert read.dtype == np.float64
    assert read.tobytes() == values.tobytes()


@given(tables())
@example(np.array([[0.0, 1.7e308, 0.0], [0.0, 0.0, -1.7e308]]))
def test_data_sets_in_rows_without_names(tmp_path, values):
    """Without names all data sets are read, or the first line is told to be like a header; only a line that
    counts the columns, or rises or falls in equal or in eight or more steps, can be left out as one."""
    (tmp_path / "x.csv").write_text(as_csv(values.tolist()))
    first, n = values[0], values.shape[1]
    try:
        _, read = read_observations(tmp_path / "x.csv", "x", (n,))
    except DataError as error:
        assert "may be either" in str(error) or "no numbers" in str(error)  # noqa: PT017 - or no error
        assert _in_order(first)
        return
    if len(read) == len(values):
        assert read.tobytes() == values.tobytes()
    else:
        assert read.tobytes() == values[1:].tobytes()
        assert len(values) > 1
        assert _in_order(first)
        assert n >= 8 or np.allclose(np.diff(first / 2), np.diff(first / 2)[0], rtol=1e-6, atol=0)


def _in_order(row):
    return len(row) >= 3 and bool((row[1:] > row[:-1]).all() or (row[1:] < row[:-1]).all())


@given(
    st.tuples(st.integers(2, 4), st.integers(3, 9)).flatmap(
        lambda shape: arrays.arrays("f8", shape, elements=st.integers(-40, 40).map(lambda k: k / 4 + 1 / 8))
    ),
    st.booleans(),
    st.integers(-1000, 0),
)
@example(np.array([[0.125, 1.125, 2.125, 3.125], [5.125, 5.125, 0.125, 9.125]]), False, -40)
def test_a_unit_does_not_decide_what_is_a_header(tmp_path, values, with_header, power):
    """Numbers that are not whole are taken for data sets or a header alike in any unit."""
    if with_header:
        values[0] = 0.125 + np.arange(values.shape[1])
    found = []
    for unit in (1.0, 2.0**power):
        (tmp_path / "x.csv").write_text(as_csv((values * unit).tolist()))
        try:
            found.append((read_observations(tmp_path / "x.csv", "x", values.shape[1:])[1] / unit).tolist())
        except DataError as error:
            assert "may be either" in str(error)  # noqa: PT017 - or no error
            found.append([])
    assert found[0] == found[1]


@given(
    st.lists(LABELS, min_size=1, max_size=4, unique_by=str.strip),
    st.integers(2, 4),
    st.integers(2, 3),
    st.data(),
)
def test_measurements_in_rows(tmp_path, labels, length, width, data):
    """One row a measurement, in any order, below names or not: data sets in the order in which their labels
    come first, measurements in that of their positions, numbers to the bit."""
    assume(length * width != 2 + width)
    shape = (len(labels), length, width)
    values = data.draw(arrays.arrays("f8", shape, elements=FINITE, fill=st.nothing()))
    positions = data.draw(st.lists(FINITE, min_size=length, max_size=length, unique=True))
    positions.sort()
    rows = [
        [label, repr(position), *map(repr, measured.tolist())]
        for label, of_one in zip(labels, values, strict=True)
        for position, measured in zip(positions, of_one, strict=True)
    ]
    rows = data.draw(st.permutations(rows))
    header = data.draw(st.sampled_from([[], [["data set", "position", *"abc"[:width]]]]))
    (tmp_path / "x.csv").write_text(as_csv([*header, *rows]), encoding="utf-8")
    read_labels, read = read_observations(tmp_path / "x.csv", "x", (length, width))
    expected = list(dict.fromkeys(row[0].strip() for row in rows))
    assert read_labels == expected
    stripped = [label.strip() for label in labels]
    assert read.tobytes() == values[[stripped.index(label) for label in expected]].tobytes()


@given(tables(), st.integers(0, 35), st.sampled_from(["nan", "inf", "-inf", "1e999", "", "x", "1_0", "1,5"]))
def test_one_bad_cell_refuses_the_file(tmp_path, values, place, cell):
    """A cell that is no finite number is an error, never a number or a missing row."""
    rows = [["a"] * values.shape[1], *([repr(value) for value in row] for row in values.tolist())]
    rows[1 + place % len(values)][place % values.shape[1]] = cell
    assume(any(rows[1 + place % len(values)]))  # a blank line is none
    (tmp_path / "x.csv").write_text(as_csv(rows))
    with pytest.raises(DataError, match=r"x\.csv"):
        read_observations(tmp_path / "x.csv", "x", (values.shape[1],))


DTYPES = st.sampled_from(["f2", "f4", "f8", ">f8", "i1", "i4", "i8", "u1", "u8", "?"])
NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\/:"), min_size=1, max_size=6
)


@given(
    st.dictionaries(
        NAMES.filter(lambda name: name != "file"),
        st.tuples(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3), DTYPES).flatmap(
            lambda kind: arrays.arrays(kind[1], kind[0])
        ),
        max_size=4,
    ),
    st.sampled_from("CF"),
    st.booleans(),
)
def test_archives_of_arrays(tmp_path, variables, order, compressed):
    """Arrays of any name, type, shape and order in memory, with NaN and infinities, come back to the bit from
    plain and compressed archives."""
    written = {name: np.asarray(value, order=order) for name, value in variables.items()}
    (np.savez_compressed if compressed else np.savez)(tmp_path / "x.npz", **written)
    read = read_file(tmp_path / "x.npz")
    assert read.keys() == variables.keys()
    for name, value in variables.items():
        assert read[name].dtype == value.dtype
        assert read[name].shape == value.shape
        assert read[name].tobytes() == value.tobytes()
