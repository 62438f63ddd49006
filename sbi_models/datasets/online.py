"""Training batches that are simulated during training."""

from collections.abc import Callable, Generator, Iterator, Sequence

from sbi_models.types import Variables

Stream = Callable[[Sequence[tuple[int, int]]], Generator[Variables, None, None]]


class OnlineBatches:
    """Batches of simulations: batch k of epoch e has rows (e K + k) B to (e K + k + 1) B of an endless table.

    Variables are in raw space.

    Args:
        stream: yields rows start..stop of the table for each of a sequence of such ranges; it may compute
            later ones ahead.
        num_batches: K, batches of one epoch.
        batch_size: B.
        at_once: batches that are simulated in one call.
        epochs: number of epochs, so that no unused simulations are computed ahead.
        in_thread: whether the stream may be used in a thread.

    >>> from sbi_models.simulators import make_simulator
    >>> simulator = make_simulator(lambda rng: {"x": rng.normal()})
    >>> batches = OnlineBatches(lambda ranges: simulator.stream(ranges, seed=1, workers=1), 3, 4)
    >>> [batch["x"].shape for batch in batches]
    [(4, 1), (4, 1), (4, 1)]
    """

    def __init__(
        self,
        stream: Stream,
        num_batches: int,
        batch_size: int,
        at_once: int = 1,
        *,
        epochs: int = 1,
        in_thread: bool = False,
    ) -> None:
        self.stream, self.num_batches, self.batch_size, self.at_once = (
            stream,
            num_batches,
            batch_size,
            at_once,
        )
        self.epochs, self.in_thread = epochs, in_thread
        self.epoch = 0
        self.fingerprint = f"{num_batches} batches of {batch_size} an epoch"
        self._coming: Generator[Variables, None, None] | None = None
        self._next_epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Variables]:
        epoch = self.epoch
        if self._coming is None or self._next_epoch != epoch or epoch >= self.epochs:
            self.close()
            epochs = range(epoch, max(self.epochs, epoch + 1))
            self._coming = self.stream([rows for later in epochs for rows in self._ranges(later)])
        self._next_epoch = -1  # an epoch that is left before its end is begun anew
        for left in reversed(range(len(self._ranges(epoch)))):
            chunk = next(self._coming)
            if not left:  # some trainers do not ask for more than the last batch
                self._next_epoch = epoch + 1
            yield chunk

    def close(self) -> None:
        """Stop the computation ahead."""
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def _ranges(self, epoch: int) -> list[tuple[int, int]]:
        first = epoch * self.num_batches
        starts = range(first, first + self.num_batches, self.at_once)
        return [
            (k * self.batch_size, min(k + self.at_once, first + self.num_batches) * self.batch_size)
            for k in starts
        ]
