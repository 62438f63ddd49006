"""Cache keys for any settings: equal for equal ones, different for different ones."""

import json
import math
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sbi_models.pipeline import cache
from sbi_models.pipeline.cache import content_key

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["1", "1.0", "True", "true", "null", "None", "NaN", "nan", "-0.0", "[]", "{}", ""]),
)
NUMPY = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.integers(-(2**62), 2**62).map(np.int64),
    st.floats(width=32).map(np.float32),
    st.floats().map(np.float64),
    st.booleans().map(np.bool_),
)
KEYS = st.one_of(st.text(max_size=3), st.integers(-2, 2), st.booleans(), st.none())


def nested(leaves, keys):
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    )


SETTINGS = nested(SCALARS | NUMPY, KEYS)


def meaning(value):
    """A value with the types of Python, so that `==` tells 1, 1.0, True, "1", 0.0 and -0.0 apart, and NaN is
    itself; numbers of NumPy mean those of Python."""
    value = value.tolist() if isinstance(value, np.generic) else value
    if isinstance(value, dict):
        return "dict", frozenset((meaning(key), meaning(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return "list", tuple(map(meaning, value))
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else value.hex()
    return type(value).__name__, value


def key(*parts):
    return content_key("task", cache.__name__, *parts)


def reordered(value, reverse):
    """The same settings with the keys of every dict in another order."""
    if isinstance(value, dict):
        items = [(name, reordered(inner, reverse)) for name, inner in value.items()]
        return dict(reversed(items) if reverse else items)
    return [reordered(inner, reverse) for inner in value] if isinstance(value, list) else value


@given(SETTINGS)
def test_equal_settings_have_one_key(value):
    """A copy, and the same dicts in another order, have the same key."""
    assert key(value) == key(deepcopy(value)) == key(reordered(value, reverse=True))


@given(SETTINGS, SETTINGS)
@example(1, 1.0)
@example(1, True)
@example(1, "1")
@example(0.0, -0.0)
@example(math.nan, "NaN")
@example(math.nan, None)
@example(np.int64(1), "1")
@example(np.float32(0.1), "0.1")
@example(np.float32(0.1), 0.1)
@example({1: 0}, {"1": 0})
@example({True: 0}, {"true": 0})
@example({None: 0}, {"null": 0})
@example({1: 0, "1": 1}, {1: 1, "1": 0})
@example([], {})
@example([[1], 2], [[1, 2]])
@example({}, None)
def test_different_settings_have_different_keys(one, other):
    """Another type, number, sign of zero, text, key or nesting is another key."""
    assume(meaning(one) != meaning(other))
    assert key(one) != key(other)
    assert key([one]) != key([other])
    assert key({"a": one}) != key({"a": other})


@given(SETTINGS, st.data())
def test_one_changed_leaf_changes_the_key(value, data):
    """Settings in which a single leaf, however deep, is replaced by another have another key."""
    places = [place for place, _ in leaves(value)]
    place = data.draw(st.sampled_from(places))
    new = data.draw(SCALARS | NUMPY)
    changed = replaced(value, place, new)
    assume(meaning(changed) != meaning(value))
    assert key(changed) != key(value)


def leaves(value, place=()):
    """Places and values of all leaves; an empty list or dict is one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [leaf for step, part in inner for leaf in leaves(part, (*place, step))]
    return found or [(place, value)]


def replaced(value, place, new):
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = replaced(value[place[0]], place[1:], new)
    return copy


@given(nested(SCALARS, st.text(max_size=3)))
def test_the_key_of_json_is_that_of_its_text(value):
    """Settings that JSON holds are hashed as JSON writes them: what was read back from a file has their
    key."""
    assert key(value) == key(json.loads(json.dumps(value)))


def test_an_array_counts_with_every_number():
    """One of 2000 numbers, which NumPy does not print, changes the key."""
    values = np.zeros(2000)
    other = values.copy()
    other[1000] = 1.0
    assert key(values) != key(other)
    assert key(values) == key(values.copy())


@pytest.mark.parametrize("parts", [((1, 2),), ([1, 2],)])
def test_a_tuple_is_a_list(parts):
    """As in YAML and JSON, which have no tuples."""
    assert key(*parts) == key([1, 2])
