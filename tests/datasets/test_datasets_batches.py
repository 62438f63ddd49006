"""Batches in memory and batches that are simulated while training."""

import numpy as np
import pytest
import torch

from sbi_models.datasets import Batches, OnlineBatches, PreparedBatches


def batches(n=23, batch_size=5, seed=0):
    rows = torch.arange(n)
    return Batches({"a": rows, "b": torch.stack([rows, -rows], dim=1)}, batch_size, seed)


def order(data, epoch):
    data.set_epoch(epoch)
    return torch.cat([batch["a"] for batch in data]).tolist()


@pytest.mark.parametrize(("n", "batch_size"), [(23, 5), (20, 5), (3, 5), (1, 1)])
@pytest.mark.parametrize("seed", [0, None])
def test_an_epoch_holds_every_row_once(n, batch_size, seed):
    """Every row comes exactly once an epoch, variables stay together, and only the last batch may be
    shorter."""
    data = batches(n, batch_size, seed)
    for epoch in range(3):
        assert sorted(order(data, epoch)) == list(range(n))
        drawn = list(data)
        assert len(drawn) == len(data) == -(-n // batch_size)
        assert [len(batch["a"]) for batch in drawn[:-1]] == [batch_size] * (len(drawn) - 1)
        for batch in drawn:
            assert torch.equal(batch["b"], torch.stack([batch["a"], -batch["a"]], dim=1))


def test_the_order_depends_on_seed_and_epoch_alone():
    """The same seed and epoch give the same order, whatever was drawn before and whatever the global state;
    others give others."""
    data = batches()
    torch.manual_seed(0)
    orders = [order(data, epoch) for epoch in range(4)]
    torch.manual_seed(1)
    assert order(batches(), 3) == orders[3]
    assert order(data, 0) == orders[0]
    assert len({tuple(rows) for rows in orders} | {tuple(order(batches(seed=1), 0))}) == 5
    assert orders[0] != list(range(23))


def test_without_a_seed_the_order_is_that_of_the_data():
    """seed=None keeps the rows in order in every epoch."""
    assert order(batches(seed=None), 0) == order(batches(seed=None), 5) == list(range(23))


def test_a_new_pass_starts_at_once_with_the_epoch_that_was_set():
    """set_epoch between iter() and the first batch is heard, since trainers make the iterator first."""
    data = batches()
    expected = order(data, 2)
    data.set_epoch(0)
    iterator = iter(data)
    data.set_epoch(2)
    assert torch.cat([batch["a"] for batch in iterator]).tolist() == expected


def test_shuffles_move_rows_uniformly():
    """Over 2000 epochs the first row of 10 is each row about 200 times, within 5 standard errors."""
    data = batches(10, 10)
    counts = np.bincount([order(data, epoch)[0] for epoch in range(2000)], minlength=10)
    assert np.abs(counts - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)


def test_online_batches_are_consecutive_rows_of_the_table():
    """Batch k of epoch e is rows (e K + k) B to (e K + k + 1) B, prepared; no row is used twice and none is
    left out."""
    asked = []

    def stream(ranges):
        for start, stop in ranges:
            asked.append((start, stop))
            yield {"x": np.arange(start, stop)}

    raw = OnlineBatches(stream, num_batches=3, batch_size=4)
    data = PreparedBatches(raw, lambda raw: {"x": torch.as_tensor(2 * raw["x"])})
    assert len(data) == 3
    seen = []
    for epoch in range(2):
        data.set_epoch(epoch)
        seen += [batch["x"] for batch in data]
    assert asked == [(4 * k, 4 * k + 4) for k in range(6)]
    assert torch.equal(torch.cat(seen), 2 * torch.arange(24))
    data.set_epoch(5)
    next(iter(data))
    assert asked[-1] == (60, 64)
