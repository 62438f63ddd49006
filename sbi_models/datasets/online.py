"""Batches that are simulated while training."""

from collections.abc import Callable, Iterator

from sbi_models.types import Variables


class OnlineBatches:
    """Batch k of epoch e is rows (e K + k) B to (e K + k + 1) B of an endless table of simulations, raw space.

    Args:
        rows: computes rows start..stop of the table.
        num_batches: K, batches of one epoch.
        batch_size: B.
    """

    def __init__(self, rows: Callable[[int, int], Variables], num_batches: int, batch_size: int) -> None:
        self.rows, self.num_batches, self.batch_size = rows, num_batches, batch_size
        self.epoch = 0
        self.fingerprint = f"{num_batches} batches of {batch_size} an epoch"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Variables]:
        for k in range(self.num_batches):
            start = (self.epoch * self.num_batches + k) * self.batch_size
            yield self.rows(start, start + self.batch_size)
