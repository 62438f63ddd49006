"""What a training needs of its batches, as a protocol."""

from collections.abc import Iterator
from typing import Any, Protocol


class TrainingBatches(Protocol):
    """Prepared batches, in an order that is a function of the epoch."""

    @property
    def fingerprint(self) -> str: ...

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...
