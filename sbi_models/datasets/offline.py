"""Training batches of data that fit into memory."""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import zip_longest
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.datasets.sharing import digest_of
from sbi_models.padding import cut_to, grouped, row_lengths
from sbi_models.ragged import content, is_ragged, real_or_ragged
from sbi_models.types import Array


class Batches:
    """Shuffled batches of tensors of equal length by name, in an order given by seed and epoch alone.

    Args:
        tensors: name to tensor of shape (n, ...).
        batch_size: rows of a batch; the last one of an epoch may be shorter.
        seed: None keeps the order of the data.
        windows: the rows of each member of an ensemble; then a batch is a list of one batch for each, in an
            order of its own, or None for a member that has no rows left in this epoch.
        masks: names of variables of any length, (n, length, ...), to those of their masks, (n, length), True
            where an element is; batches are then grouped by length, and as long as their longest row.

    >>> batches = Batches({"theta": torch.arange(5.0)[:, None]}, batch_size=2, seed=1)
    >>> [tuple(batch["theta"].shape) for batch in batches]
    [(2, 1), (2, 1), (1, 1)]
    """

    in_thread = True

    def __init__(
        self,
        tensors: dict[str, Any],
        batch_size: int,
        seed: int | None,
        windows: list[Array] | None = None,
        masks: Mapping[str, str] | None = None,
    ) -> None:
        self.tensors, self.batch_size, self.seed = tensors, batch_size, seed
        self.windows, self.masks = windows, masks or {}
        self._lengths = row_lengths(tensors, self.masks) if masks else None
        self.epoch = 0

    def to(self, device: torch.device) -> None:
        """Move the data to a device if they fit into half of its free memory, else batch by batch."""
        size = sum(value.nbytes for value in self.tensors.values())
        if device.type != "cuda" or size <= torch.cuda.mem_get_info(device)[0] / 2:
            self.tensors = {name: value.to(device) for name, value in self.tensors.items()}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over values, batch size and seed: equal for equal batches."""
        digest = hashlib.sha256(f"{self.batch_size} {self.seed}".encode())
        for name, value in sorted(self.tensors.items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(content(value if isinstance(value, np.ndarray) else value.cpu().numpy()))
        digest.update(digest_of(self.windows))
        return digest.hexdigest()

    @property
    def _device(self) -> torch.device:
        first = next(value for value in self.tensors.values() if isinstance(value, Tensor))
        return first.device

    @property
    def num_rows(self) -> int:
        """Rows of one epoch, or of the member with the most."""
        return len(next(iter(self.tensors.values()))) if self.windows is None else max(map(len, self.windows))

    def __len__(self) -> int:
        return ceil(self.num_rows / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self.windows is not None:
            yield from map(list, zip_longest(*map(self._batches_of, range(len(self.windows)))))
            return
        if self.seed is None:
            for start in range(0, self.num_rows, self.batch_size):
                yield self._rows(slice(start, start + self.batch_size))
            return
        every = torch.arange(self.num_rows)
        for rows in torch.split(self._ordered(every, "shuffle", self.epoch), self.batch_size):
            yield self._rows(rows)

    def _rows(self, rows: Tensor | slice) -> dict[str, Tensor]:
        """The data of some rows, cut to the longest of them."""
        here = rows if isinstance(rows, slice) else rows.to(self._device)
        batch = {name: _taken(value, here) for name, value in self.tensors.items()}
        return batch if self._lengths is None else cut_to(batch, self.masks, int(self._lengths[rows].max()))

    def _ordered(self, rows: Tensor, *path: int | str) -> Tensor:
        """Rows in random order, those of a batch of nearly one length if lengths differ."""
        assert self.seed is not None
        seed = seeding.derive(self.seed, *path)
        order = rows[self._shuffled(len(rows), seed)]
        if self._lengths is None:
            return order
        generator = torch.Generator().manual_seed(seeding.derive(seed, "batches of one length"))
        return grouped(order, self._lengths, self.batch_size, generator)

    def _batches_of(self, member: int) -> Iterator[dict[str, Tensor]]:
        assert self.windows is not None
        window = torch.as_tensor(self.windows[member])
        if self.seed is not None:
            window = self._ordered(window, "shuffle", self.epoch, "member", member)
        for rows in torch.split(window, self.batch_size):
            yield self._rows(rows)

    @staticmethod
    def _shuffled(num_rows: int, seed: int) -> Tensor:
        return torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))


def _taken(value: Any, rows: Tensor | slice) -> Any:
    """Rows of a tensor, or of an array of data sets of different lengths."""
    return value[rows.numpy() if isinstance(value, np.ndarray) and isinstance(rows, Tensor) else rows]


def raw_tensors(data: Mapping[str, Any], num_rows: int) -> dict[str, Any]:
    """Variables with so many rows as tensors, or as arrays of data sets of different lengths, copied."""
    raw: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, np.ndarray | Tensor | list | tuple) and len(value) == num_rows:
            array = real_or_ragged(value, f"variable {name!r} of the training data", copy=True)
            raw[name] = array if is_ragged(array) else torch.as_tensor(array)
    return raw
