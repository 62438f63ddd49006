"""Seeding: one integer seed and a path of names give one stream of random numbers.

Streams of different names are independent for all practical purposes, so results depend neither on the order
in which parts of a program run nor on how work is split between workers.
"""

import hashlib
from operator import index

import numpy as np

from sbi_models.errors import ConfigurationError


def check_seed(seed: object) -> int:
    """The seed as a Python int; raises ConfigurationError unless it is a non-negative integer."""
    try:
        value = index(seed)  # type: ignore[arg-type]
    except TypeError:
        value = -1
    if isinstance(seed, bool) or value < 0:
        raise ConfigurationError(
            f"Expected a seed that is a non-negative integer, got {seed!r}. Pass for instance seed=0."
        )
    return value


def derive(seed: int, *path: str | int) -> int:
    """A 63-bit integer seed for the stream that `path` names below `seed`.

    >>> derive(0, "weights") == derive(0, "weights")
    True
    >>> derive(0, "weights") == derive(1, "weights") or derive(0, "weights") == derive(0, "noise")
    False
    """
    parts = (f"str:{part}" if isinstance(part, str) else f"int:{index(part)}" for part in path)
    text = "/".join([str(check_seed(seed)), *parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """A NumPy generator at the start of the stream that `path` names below `seed`.

    >>> float(generator(1, "training", "noise").normal()) == float(generator(1, "training", "noise").normal())
    True
    """
    return np.random.Generator(np.random.PCG64(derive(seed, *path)))


def fresh_seed() -> int:
    """A seed for a caller that gave none, drawn from NumPy's global state, so `np.random.seed` repeats it."""
    return int(np.random.randint(2**63 - 1, dtype=np.int64))  # noqa: NPY002 - the global state is the point


def resolve(seed: int | None) -> int:
    """The seed itself, checked, or a fresh one for None."""
    return fresh_seed() if seed is None else check_seed(seed)
