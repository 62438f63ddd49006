"""Named streams of random numbers."""

import numpy as np
import pytest

from sbi_models import seeding
from sbi_models.errors import ConfigurationError


def test_streams_are_equal_by_seed_and_differ_by_any_part_of_the_name():
    """The same path gives the same numbers; another seed, name, depth, order or type of a part gives other
    ones."""
    paths = [
        (0,),
        (1,),
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", "b"),
        (0, "b", "a"),
        (0, "ab"),
        (0, "a", 1),
        (0, "a", "1"),
        (0, 1, "a"),
    ]
    draws = [tuple(seeding.generator(*path).normal(size=3)) for path in paths]
    assert len(set(draws)) == len(paths)
    assert draws == [tuple(seeding.generator(*path).normal(size=3)) for path in paths]


def test_seeds_are_known_numbers():
    """Derived seeds never change between versions: saved work would no longer be repeatable. 63 bits, so
    every library takes them."""
    assert seeding.derive(0, "simulation", 3) == 5457804511135705453
    assert all(0 <= seeding.derive(seed, "x") < 2**63 for seed in range(1000))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_of_any_type_name_the_same_stream(kind):
    """NumPy integers are the integers they stand for, as a seed and as a part of a name."""
    assert seeding.derive(kind(3), "shard", kind(4)) == seeding.derive(3, "shard", 4)


def test_streams_of_neighbouring_names_are_uncorrelated():
    """Correlations between 40 streams of consecutive names are within 5 standard errors of zero."""
    draws = np.stack([seeding.generator(0, "simulation", k).normal(size=2000) for k in range(40)])
    off_diagonal = np.corrcoef(draws)[np.triu_indices(40, 1)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(2000)


@pytest.mark.parametrize("seed", [-1, 1.0, 2.5, "0", None, True, np.float64(1), [1]])
def test_bad_seeds_are_refused(seed):
    """Anything but a non-negative integer is refused, with what was got and a cure."""
    with pytest.raises(ConfigurationError, match=r"non-negative integer, got .*Pass for instance seed=0"):
        seeding.check_seed(seed)


def test_the_global_state_decides_only_where_no_seed_is_given():
    """resolve(None) follows np.random.seed; resolve(7) is 7 and leaves the global state alone."""
    np.random.seed(3)
    first, second = seeding.resolve(None), seeding.resolve(None)
    np.random.seed(3)
    assert seeding.resolve(7) == 7
    assert (seeding.resolve(None), seeding.resolve(None)) == (first, second)
    assert first != second


def test_fresh_seeds_are_any_numbers_of_63_bits():
    """The mean of 400 fresh seeds is within 4 standard errors of the middle of all, and so is the share of
    odd ones."""
    np.random.seed(5)
    seeds = np.array([seeding.fresh_seed() for _ in range(400)], dtype=float) / 2.0**63
    assert abs(seeds.mean() - 0.5) < 4 / np.sqrt(12 * 400)
    odd = np.array([seeding.fresh_seed() % 2 for _ in range(400)])
    assert abs(odd.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
