"""Number of contexts that a store of simulations holds."""

import hashlib
from collections.abc import Sequence

from sbi_models.datasets import SimulationStore
from sbi_models.ragged import content

_ROWS_AT_ONCE = 4096


def num_contexts(store: SimulationStore, names: Sequence[str]) -> int:
    """Number of different values of some variables, together, among the rows of a store.

    Args:
        store: simulations.
        names: what `meta_fn` of the simulator returns.

    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     rows = lambda start, stop: {"size": np.arange(start, stop)[:, None] // 5}
    ...     num_contexts(SimulationStore.create(folder, rows, 20, seed=1, fingerprint=""), ["size"])
    4
    """
    known = set()
    for start in range(0, store.num_simulations, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, store.num_simulations)
        rows = list(store.rows(start, stop, names).values())
        for row in range(stop - start):
            digest = hashlib.blake2b(digest_size=16)
            for value in rows:
                digest.update(content(value[row : row + 1]))
            known.add(digest.digest())
    return len(known)
