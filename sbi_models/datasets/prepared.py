"""Batches of raw data, made ready for the networks one by one."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from sbi_models.datasets.augmentations import Augment
from sbi_models.types import Array, Variables


class RawBatches(Protocol):
    """Batches of raw variables, in an order that is a function of the epoch."""

    epoch: int

    @property
    def fingerprint(self) -> str: ...

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class PreparedBatches:
    """Raw batches, augmented if asked for, and then prepared.

    Args:
        raw: batches of raw variables.
        prepare: raw variables to standardised tensors by role.
        augment: applied to each batch before that.
    """

    def __init__(self, raw: RawBatches, prepare: Callable[[Variables], dict[str, Tensor]], augment: Augment | None = None) -> None:
        self.raw, self.prepare, self.augment = raw, prepare, augment

    @property
    def fingerprint(self) -> str:
        """That of the raw batches."""
        return self.raw.fingerprint

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is."""
        self.raw.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first = self.raw.epoch * len(self.raw)
        for k, batch in enumerate(self.raw):
            variables: Variables = {name: _numpy(value) for name, value in batch.items()}
            yield self.prepare(variables if self.augment is None else self.augment(variables, first + k))


def _numpy(value: Tensor | Array) -> Array:
    return value.numpy() if isinstance(value, Tensor) else np.asarray(value)
