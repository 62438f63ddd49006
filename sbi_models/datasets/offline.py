"""Batches of data that fit into memory."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from sbi_models import seeding


class Batches:
    """Shuffled batches of tensors of equal length, by name; the order is a function of the seed and the epoch alone.

    Args:
        tensors: name to tensor of shape (n, ...).
        batch_size: rows of a batch; the last one of an epoch may be shorter.
        seed: None keeps the order of the data.
    """

    in_thread = True

    def __init__(self, tensors: dict[str, Tensor], batch_size: int, seed: int | None) -> None:
        self.tensors, self.batch_size, self.seed = tensors, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is."""
        self.epoch = epoch

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over values, batch size and seed: equal for equal batches."""
        digest = hashlib.sha256(f"{self.batch_size} {self.seed}".encode())
        for name, value in sorted(self.tensors.items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def num_rows(self) -> int:
        """Rows of one epoch."""
        return len(next(iter(self.tensors.values())))

    def __len__(self) -> int:
        return ceil(self.num_rows / self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.seed is None:
            order = None
        else:
            order = torch.randperm(self.num_rows, generator=torch.Generator().manual_seed(seeding.derive(self.seed, "shuffle", self.epoch)))
        for start in range(0, self.num_rows, self.batch_size):
            rows = slice(start, start + self.batch_size) if order is None else order[start : start + self.batch_size]
            yield {name: value[rows] for name, value in self.tensors.items()}
