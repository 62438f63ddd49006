"""Raw data, made ready for the networks while the batches before them are trained on."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from torch import Tensor

from sbi_models.datasets.ahead import ahead
from sbi_models.datasets.augmentations import Augment
from sbi_models.types import Variables


class RawChunks(Protocol):
    """Raw variables in chunks of whole batches, in an order that is a function of the epoch; the last batch of all may be shorter."""

    epoch: int
    batch_size: int
    in_thread: bool
    """Whether a thread may make them: not if they use NumPy's global random state."""

    @property
    def fingerprint(self) -> str: ...

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class PreparedBatches:
    """Batches of raw chunks, augmented if asked for, and prepared. The next chunk is made in the background.

    Args:
        raw: chunks of raw variables.
        prepare: raw variables to standardised tensors by role.
        augment: applied to each batch before that.
    """

    def __init__(self, raw: RawChunks, prepare: Callable[[Variables], dict[str, Tensor]], augment: Augment | None = None) -> None:
        self.raw, self.prepare, self.augment = raw, prepare, augment

    @property
    def fingerprint(self) -> str:
        """That of the raw chunks."""
        return self.raw.fingerprint

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is."""
        self.raw.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        made = ahead if self.raw.in_thread else iter
        if self.augment is None:
            for chunk in made(self.prepare(chunk) for chunk in self.raw):
                yield from self._batches(chunk)
            return
        first = self.raw.epoch * len(self.raw)
        batches = (batch for chunk in made(self.raw) for batch in self._batches(chunk))
        for step, batch in enumerate(batches, start=first):
            variables = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in batch.items()}
            yield self.prepare(self.augment(variables, step))

    def _batches(self, chunk: dict[str, Any]) -> Iterator[dict[str, Any]]:
        size = self.raw.batch_size
        for start in range(0, len(next(iter(chunk.values()))), size):
            yield {name: value[start : start + size] for name, value in chunk.items()}
