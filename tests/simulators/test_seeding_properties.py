"""Streams of any seed and name, by the definition of their seed."""

import hashlib

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from sbi_models import seeding

SEEDS = st.integers(0, 2**80)
PARTS = st.integers(-(2**70), 2**70) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=5
)
PATHS = st.lists(PARTS, max_size=4)


@given(SEEDS, PATHS)
def test_a_stream_is_that_of_the_hash_of_its_name(seed, path):
    """The seed is BLAKE2b of seed and path, 8 bytes without the last bit, and its generator NumPy's PCG64."""
    text = "/".join([str(seed), *(f"{'str' if isinstance(part, str) else 'int'}:{part}" for part in path)])
    expected = int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little") // 2
    assert seeding.derive(seed, *path) == expected
    drawn = seeding.generator(seed, *path).normal(size=3)
    np.testing.assert_array_equal(drawn, np.random.Generator(np.random.PCG64(expected)).normal(size=3))


@given(SEEDS, PATHS, SEEDS, PATHS)
def test_other_names_are_other_streams(seed, path, other_seed, other_path):
    """Another seed, part, type of a part, or depth is another stream; names of the package have no slash."""
    assume((seed, [(type(part), part) for part in path]) != (other_seed, [(type(p), p) for p in other_path]))
    assert seeding.derive(seed, *path) != seeding.derive(other_seed, *other_path)
    assert seeding.derive(seed, *path) != seeding.derive(seed, *path, "")
