"""Batches that are simulated while training."""

from collections.abc import Callable, Iterator

from sbi_models.types import Variables


class OnlineBatches:
    """Batch k of epoch e is rows (e K + k) B to (e K + k + 1) B of an endless table of simulations, raw space.

    Args:
        rows: computes rows start..stop of the table.
        num_batches: K, batches of one epoch.
        batch_size: B.
        at_once: batches that are simulated in one call.
        in_thread: whether `rows` may be called in a thread.
    """

    def __init__(
        self, rows: Callable[[int, int], Variables], num_batches: int, batch_size: int, at_once: int = 1, *, in_thread: bool = False
    ) -> None:
        self.rows, self.num_batches, self.batch_size, self.at_once, self.in_thread = rows, num_batches, batch_size, at_once, in_thread
        self.epoch = 0
        self.fingerprint = f"{num_batches} batches of {batch_size} an epoch"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Variables]:
        first = self.epoch * self.num_batches
        for k in range(first, first + self.num_batches, self.at_once):
            last = min(k + self.at_once, first + self.num_batches)
            yield self.rows(k * self.batch_size, last * self.batch_size)
