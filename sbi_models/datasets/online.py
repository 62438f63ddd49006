"""Batches that are simulated while training."""

from collections.abc import Callable, Iterator

from torch import Tensor

from sbi_models.types import Variables


class OnlineBatches:
    """Batch k of epoch e is rows (e K + k) B to (e K + k + 1) B of an endless table of simulations.

    Args:
        rows: computes rows start..stop of the table, raw space.
        prepare: raw variables to standardised tensors by role.
        num_batches: K, batches of one epoch.
        batch_size: B.
    """

    def __init__(
        self, rows: Callable[[int, int], Variables], prepare: Callable[[Variables], dict[str, Tensor]], num_batches: int, batch_size: int
    ) -> None:
        self.rows, self.prepare, self.num_batches, self.batch_size = rows, prepare, num_batches, batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is."""
        self.epoch = epoch

    @property
    def fingerprint(self) -> str:
        """How the table of simulations is cut into batches."""
        return f"{self.num_batches} batches of {self.batch_size} an epoch"

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for k in range(self.num_batches):
            start = (self.epoch * self.num_batches + k) * self.batch_size
            yield self.prepare(self.rows(start, start + self.batch_size))
