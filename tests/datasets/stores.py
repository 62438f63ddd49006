"""Small simulation stores, and the table that they hold."""

import numpy as np

from sbi_models.datasets import SimulationStore
from sbi_models.simulators import make_simulator

SIMULATOR = make_simulator(
    lambda rng: {
        "theta": rng.normal(size=2),
        "x": rng.normal(size=(3, 1)).astype("f4"),
        "k": rng.integers(9),
        "ok": rng.uniform() < 0.5,
    }
)


class Rows:
    """The table of a seed, and which rows of it were asked for."""

    def __init__(self, seed=0):
        self.seed, self.asked = seed, []

    def __call__(self, start, stop):
        self.asked.append((start, stop))
        return SIMULATOR.rows(start, stop, seed=self.seed)


def create(folder, *, n=25, seed=0, fingerprint="f", rows_per_shard=10, rows=None):
    return SimulationStore.create(
        folder, rows or Rows(seed), n, seed=seed, fingerprint=fingerprint, rows_per_shard=rows_per_shard
    )


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert a[key].dtype == b[key].dtype
