"""Simulations that are there twice are found in stores of continuous simulators, and in no others."""

import numpy as np
import pytest

from sbi_models.datasets import SimulationStore, num_shared
from sbi_models.datasets.duplicates import is_continuous, num_repeated, row_keys
from sbi_models.errors import DataError

N = 600


def _draws(seed, n=N):
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 2))
    return {"theta": theta, "x": theta + rng.normal(size=(n, 2)), "k": rng.integers(3, size=(n, 1))}


def _store(folder, rows):
    return SimulationStore.create(
        folder,
        lambda a, b: {k: v[a:b] for k, v in rows.items()},
        N,
        seed=1,
        fingerprint="f",
        rows_per_shard=200,
    )


def _cloned():
    rows = _draws(0)
    return {name: np.concatenate([value[:400], value[100:300]]) for name, value in rows.items()}


CONTINUOUS = {
    "generators that began anew": (_cloned(), 200),
    "one row again": (
        {name: np.concatenate([value[:-1], value[:1]]) for name, value in _draws(1).items()},
        1,
    ),
    "all rows alike": ({name: np.repeat(value[:1], N, axis=0) for name, value in _draws(2).items()}, N - 1),
    "single precision": ({name: value.astype("f4") for name, value in _cloned().items()}, 200),
    "no repetition": (_draws(3), 0),
}


@pytest.mark.parametrize(("rows", "repeated"), CONTINUOUS.values(), ids=CONTINUOUS)
def test_repeated_rows_of_continuous_simulators_are_an_error(tmp_path, rows, repeated):
    """The number of rows that are there twice, across shards, is told, and the store is not finished; again
    when it is asked for again."""
    assert is_continuous(rows)
    assert num_repeated(row_keys([rows])) == repeated
    if not repeated:
        assert _store(tmp_path, rows).num_simulations == N
        return
    for _ in range(2):
        with pytest.raises(
            DataError,
            match=rf"Expected {N} different simulations .*, got {repeated} that are equal to others",
        ):
            _store(tmp_path, rows)


RNG = np.random.default_rng(4)
FEW = RNG.choice(np.sqrt([2, 3, 5, 7]), size=(N, 1))
P = RNG.uniform(size=(N, 1))
DISCRETE = {
    "counts": {"theta": RNG.integers(9, size=(N, 1)), "x": RNG.poisson(3.0, size=(N, 2))},
    "counts as floats": {
        "theta": RNG.integers(9, size=(N, 1)) * 1.0,
        "x": RNG.poisson(3.0, size=(N, 2)) * 1.0,
    },
    "rounded": {"theta": RNG.normal(size=(N, 1)).round(1), "x": RNG.normal(size=(N, 1)).round(1)},
    "a few values": {
        "theta": RNG.choice(np.sqrt([2, 3, 5, 7]), size=(N, 1)),
        "x": RNG.choice(np.sqrt([2, 3, 5]), size=(N, 1)),
    },
    "a few values, the rest follows": {"theta": FEW, "x": FEW**2},
    "a grid": {
        "theta": RNG.choice(np.linspace(0, 1, 101), size=(N, 1)),
        "x": RNG.choice(2, size=(N, 1)) * 1.0,
    },
    "nothing random": {"theta": np.ones((N, 1)), "x": np.full((N, 2), 2.5)},
}


@pytest.mark.parametrize("rows", DISCRETE.values(), ids=DISCRETE)
def test_equal_rows_of_discrete_simulators_are_let_be(tmp_path, rows):
    """Counts, as floats too, rounded values, categories and grids repeat by chance, and stores of them are
    finished."""
    assert len(np.unique(row_keys([rows]))) < N
    assert _store(tmp_path, rows).num_simulations == N
    assert len(_store(tmp_path, rows).row_keys()) == 0


@pytest.mark.parametrize("number", [100, 400, 5000])
def test_draws_from_a_list_of_templates_are_let_be(tmp_path, number):
    """Templates without noise, drawn by their number, are equal in any order: within a store, and between
    two."""
    templates, rng = np.random.default_rng(8).normal(size=(number, 5)), np.random.default_rng(9)
    drawn = [templates[rng.integers(number, size=N)] for _ in range(2)]
    first, second = (
        _store(tmp_path / str(k), {"theta": rows[:, :1], "x": rows}) for k, rows in enumerate(drawn)
    )
    assert num_shared(first.row_keys(), second.row_keys()) == 0


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_take_turns_from_one_start_are_found(processes):
    """Rows that several processes compute in turn, each with the generator as it was: all but the first of
    each kind are repetitions."""
    rows = {name: np.repeat(value[: N // processes], processes, axis=0) for name, value in _draws(10).items()}
    assert num_repeated(row_keys([rows])) == N - N // processes


def test_a_continuous_parameter_with_discrete_data_is_continuous(tmp_path):
    """Equal rows are looked at by all their variables: data of two values are no repetition, and a row of
    both is."""
    rows = {"theta": P, "x": RNG.integers(2, size=(N, 3)) * 1.0}
    assert _store(tmp_path / "a", rows).num_simulations == N
    with pytest.raises(DataError, match="got 1 that are equal"):
        _store(
            tmp_path / "b", {name: np.concatenate([value[:-1], value[:1]]) for name, value in rows.items()}
        )


def test_rows_that_two_stores_share_are_counted(tmp_path):
    """Of a store that has 150 rows of another, 150 are found, and none of one that has not."""
    first, second = _draws(5), _draws(6)
    mixed = {name: np.concatenate([value[150:], first[name][:150]]) for name, value in second.items()}
    keys = [_store(tmp_path / str(k), rows).row_keys() for k, rows in enumerate((first, mixed, _draws(7)))]
    assert [num_shared(keys[0], other) for other in keys[1:]] == [150, 0]


def test_long_rows_of_sets_are_recognized_as_those_of_arrays():
    """Only the first 256 components are compared: rows of 300 in one array, the same in a ragged one, and
    with another end have the same keys; another 256th component is another row."""
    values = np.random.default_rng(1).normal(size=(30, 300))
    ragged = np.empty(30, dtype=object)
    ragged[:] = [row.copy() for row in values]
    other_end, other = values.copy(), values.copy()
    other_end[:, 256:] += 1.0
    other[:, 255] += 1.0
    keys = row_keys([{"x": values}])
    np.testing.assert_array_equal(row_keys([{"x": ragged}]), keys)
    np.testing.assert_array_equal(row_keys([{"x": other_end}]), keys)
    assert not np.isin(row_keys([{"x": other}]), keys).any()


def test_only_compared_components_say_whether_rows_are_continuous():
    """Where the first 256 components are all zero, equal rows are no surprise, whatever follows, in an array
    and in a ragged one alike."""
    values = np.zeros((30, 300))
    values[:, 256:] = np.random.default_rng(1).normal(size=(30, 44))
    ragged = np.empty(30, dtype=object)
    ragged[:] = list(values)
    assert not is_continuous({"x": values})
    assert not is_continuous({"x": ragged})
    values[:, 255] = values[:, 256]
    assert is_continuous({"x": values})
