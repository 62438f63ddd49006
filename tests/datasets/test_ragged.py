"""Ragged variables: what is taken for one, padding, and the way to flat arrays and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbi_models.errors import DataError
from sbi_models.padding import cut_to, grouped, row_lengths
from sbi_models.ragged import (
    as_ragged,
    content,
    flattened,
    from_flattened,
    is_ragged,
    joined,
    lengths,
    padded,
    real_or_ragged,
    same_bits,
)


def sets(*sizes, width=2):
    return [np.arange(100.0 * n, 100.0 * n + n * width).reshape(n, width) for n in sizes]


def test_equal_lengths_are_a_plain_array():
    """Lists, tensors and arrays of one shape are what NumPy makes of them."""
    for value in (sets(3, 3), [part.tolist() for part in sets(3, 3)], [torch.tensor(p) for p in sets(3, 3)]):
        np.testing.assert_array_equal(real_or_ragged(value, "'x'"), np.stack(sets(3, 3)))


def test_data_sets_of_other_lengths_are_ragged():
    """Arrays, lists, tensors and arrays of objects give the same variable, also one without elements."""
    expected = as_ragged(sets(3, 1, 0))
    for value in (
        sets(3, 1, 0),
        [part.tolist() for part in sets(3, 1, 0)],
        [torch.tensor(p) for p in sets(3, 1, 0)],
        as_ragged(sets(3, 1, 0)),
    ):
        ragged = real_or_ragged(value, "'x'")
        assert is_ragged(ragged)
        for part, other in zip(ragged, expected, strict=True):
            np.testing.assert_array_equal(part, other)
            assert part.shape == other.shape


def test_groups_may_differ_in_number_and_size():
    """A data set of groups of one size is one among those whose groups differ."""
    value = [sets(3, 1), sets(2, 2, 2), [np.ones((4, 2))]]
    array, mask = padded(real_or_ragged(value, "'x'"), axes=2)
    assert array.shape == (3, 3, 4, 2)
    assert mask.sum(axis=2).tolist() == [[3, 1, 0], [2, 2, 2], [4, 0, 0]]
    np.testing.assert_array_equal(array[1, 2, :2], sets(2)[0])


@pytest.mark.parametrize(
    "value",
    [
        [np.zeros((3, 2)), np.zeros((3, 1))],
        [np.zeros((3, 2)), np.zeros(3)],
        [[[1.0, 2.0]], [[1.0], [2.0]]],
        [np.zeros((3, 2)), "text"],
        [np.zeros((3, 2)), None],
        [np.zeros((2, 2)), 1.0],
        [[[1.0]], {"a": 1}],
    ],
    ids=["widths", "axes", "widths of lists", "text", "None", "a number", "a dict"],
)
def test_what_differs_in_more_than_length_is_refused(value):
    """Elements of unequal widths, and lists that are no data, are an error that names the variable."""
    with pytest.raises(DataError, match="'x'"):
        real_or_ragged(value, "'x'")


def test_padding_repeats_the_elements_of_the_data_set():
    """So it lies inside of every support; a data set without elements takes one of another."""
    array, mask = padded(as_ragged(sets(3, 1, 0)))
    assert mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    np.testing.assert_array_equal(array[1], np.repeat(sets(1)[0], 3, axis=0))
    np.testing.assert_array_equal(array[2], np.repeat(sets(3)[0][:1], 3, axis=0))


sizes = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(sizes.filter(any))
def test_flat_arrays_and_offsets_give_the_variable_back(numbers):
    """For any numbers of elements, zero among them; parts are views."""
    ragged = as_ragged(sets(*numbers))
    values, offsets = flattened(ragged)
    assert len(values) == sum(numbers)
    assert same_bits(from_flattened(values, offsets), ragged)
    assert lengths(ragged).tolist() == numbers


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(sizes, min_size=1, max_size=4).filter(lambda groups: any(map(any, groups))))
def test_groups_come_back_from_flat_arrays(groups):
    """Two levels of offsets hold data sets of groups of elements."""
    ragged = as_ragged([as_ragged(sets(*group)) for group in groups])
    assert same_bits(from_flattened(*flattened(ragged)), ragged)


def test_content_tells_where_data_sets_end():
    """The same numbers cut elsewhere, and objects at other addresses, are other and the same content."""
    one, other = as_ragged(sets(3, 3)), as_ragged([part.copy() for part in sets(3, 3)])
    assert content(one) == content(other)
    values, _ = flattened(one)
    assert content(from_flattened(values, [np.array([0, 2, 6])])) != content(one)


def test_rows_of_several_arrays_are_joined():
    """Arrays of one length stay plain, others become ragged."""
    assert joined([np.zeros((2, 3, 1)), np.zeros((1, 3, 1))]).shape == (3, 3, 1)
    assert lengths(joined([np.zeros((2, 3, 1)), as_ragged([np.zeros((5, 1))])])).tolist() == [3, 3, 5]


def test_batches_are_grouped_by_length_and_cut_to_the_longest():
    """Each row comes once, other batches each time, with little padding, and nothing is cut off."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randint(1, 100, (1000,), generator=generator)
    mask = torch.arange(100) < numbers[:, None]
    prepared = {"x": torch.where(mask, 1.0, 0.0)[..., None], "there": mask}
    found = row_lengths(prepared, {"x": "there"})
    assert torch.equal(found, numbers)
    orders = [grouped(torch.randperm(1000, generator=generator), numbers, 32, generator) for _ in range(2)]
    assert torch.equal(orders[0].sort().values, torch.arange(1000))
    assert not torch.equal(orders[0][:32].sort().values, orders[1][:32].sort().values)
    padding = total = 0
    for rows in orders[0].split(32):
        some = {name: value[rows] for name, value in prepared.items()}
        batch = cut_to(some, {"x": "there"}, int(numbers[rows].max()))
        assert batch["x"].sum() == numbers[rows].sum()
        padding, total = padding + batch["there"].numel(), total + int(batch["there"].sum())
    assert padding < 1.15 * total
