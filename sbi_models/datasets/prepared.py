"""Background preparation of training batches: augment, adapt and standardize the next chunk in a thread."""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.datasets.augmentations import Augment
from sbi_models.datasets.prefetch import prefetched
from sbi_models.padding import cut_to, grouped, row_lengths
from sbi_models.types import Variables


class RawChunks(Protocol):
    """Raw variables in chunks of whole batches, in an order given by the epoch.

    The last batch of all may be shorter.

    For an ensemble, a chunk may be a list of one such chunk, of as many batches, for each member; None for
    one that has no rows left.
    """

    epoch: int
    batch_size: int
    in_thread: bool
    """True if a thread may compute the chunks: not if they use NumPy's global random state."""

    @property
    def fingerprint(self) -> str: ...

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class PreparedBatches:
    """Batches of raw chunks, augmented on request and prepared, with the next chunk in the background.

    Args:
        raw: chunks of raw variables.
        prepare: raw variables to standardized tensors by role.
        augment: applied to each batch before that.
        trained: positions of the members of an ensemble that train; None is all. The others have None in
            place of their batches.
        masks: prepared variables of any length to their masks; the batches of a chunk are then grouped by
            length, and as long as their longest row.
    """

    def __init__(
        self,
        raw: RawChunks,
        prepare: Callable[[Variables], dict[str, Tensor]],
        augment: Augment | None = None,
        trained: Collection[int] | None = None,
        masks: Mapping[str, str] | None = None,
    ) -> None:
        self.raw, self.prepare, self.augment, self.trained = raw, prepare, augment, trained
        self.masks = masks or {}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the raw chunks."""
        return self.raw.fingerprint

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.raw.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Any]:
        iterate = prefetched if self.raw.in_thread else iter
        if self.augment is None:
            for number, raw in enumerate(iterate(map(self._prepared, self.raw))):
                chunk = self._sorted(raw, number)
                for batch in self._batches(chunk):
                    yield (
                        [part if self._trains(member) else None for member, part in enumerate(batch)]
                        if isinstance(batch, list)
                        else batch
                    )
            return
        first = self.raw.epoch * len(self.raw)
        batches = (batch for chunk in iterate(self.raw) for batch in self._batches(chunk))
        for step, batch in enumerate(batches, start=first):
            if isinstance(batch, list):
                yield [
                    self._augmented(part, step, member) if part and self._trains(member) else None
                    for member, part in enumerate(batch)
                ]
            else:
                yield self._augmented(batch, step)

    def _augmented(self, batch: dict[str, Any], *step: int) -> dict[str, Tensor]:
        assert self.augment is not None
        variables = {
            name: value.numpy() if isinstance(value, Tensor) else value for name, value in batch.items()
        }
        return self._cut(self.prepare(self.augment(variables, *step)))

    def _cut(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A prepared batch as long as its longest row."""
        if not self.masks:
            return batch
        return cut_to(batch, self.masks, int(row_lengths(batch, self.masks).max()))

    def _sorted(self, chunk: Any, *path: int) -> Any:
        """A prepared chunk, or a list of those of members, with the rows of its batches grouped by length."""
        if isinstance(chunk, list):
            return [self._sorted(part, *path, member) for member, part in enumerate(chunk)]
        if not self.masks or chunk is None or not all(mask in chunk for mask in self.masks.values()):
            return chunk
        lengths = row_lengths(chunk, self.masks)
        seed = seeding.derive(0, "batches of one length", self.raw.epoch, *path)
        order = grouped(
            torch.arange(len(lengths)), lengths, self.raw.batch_size, torch.Generator().manual_seed(seed)
        )
        return {name: value[order.to(value.device)] for name, value in chunk.items()}

    def _trains(self, member: int) -> bool:
        return self.trained is None or member in self.trained

    def _prepared(self, chunk: Any) -> Any:
        """Prepared chunk, or a list of those of members.

        Parts of members that do not train stay raw, since steps are counted by them.
        """
        if not isinstance(chunk, list):
            return self.prepare(chunk)
        return [
            self.prepare(part) if part and self._trains(member) else part for member, part in enumerate(chunk)
        ]

    def _batches(self, chunk: Any) -> Iterator[Any]:
        """Batches of a chunk, or the lists of those of members."""
        if isinstance(chunk, list):
            yield from map(list, zip_longest(*map(self._batches, chunk)))
        elif chunk is not None:
            size = self.raw.batch_size
            for start in range(0, len(next(iter(chunk.values()))), size):
                batch = {name: value[start : start + size] for name, value in chunk.items()}
                is_prepared = all(mask in batch for mask in self.masks.values())
                yield self._cut(batch) if is_prepared else batch
