"""Data sharing of ensemble members, from the same simulations for all to disjoint ones.

With E members and a reuse of r, f = r + (1 - r) E batches of B rows are needed for E members to have one
each. Rows stand in a ring of P, and member k has consecutive ones from round(k P / E) on: B of P = ceil(f B)
rows in every step of an online training, and ceil(N / f) of the N rows of finite data, which are shuffled
first, in a whole training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.types import Array

_FUZZ = 1e-9
"""Rounding error of products of decimal fractions: 1.2 * 50 has a ceiling of 60."""


@dataclass(frozen=True)
class Sharing:
    """Data reuse of ensemble members.

    Attributes:
        members: number of members.
        reuse: r; 1 gives every member the same rows in the same order, 0 gives no row to two of them.
        trained: positions of the members that train; None is all. Rows of the others need not be prepared.

    >>> sharing = Sharing(members=5, reuse=0.8)
    >>> sharing.ring(batch_size=50), sharing.starts(90)
    (90, [0, 18, 36, 54, 72])
    """

    members: int = 1
    reuse: float = 1.0
    trained: frozenset[int] | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.reuse, int | float | np.integer | np.floating) and not isinstance(
            self.reuse, bool
        )
        if not number or not 0 <= self.reuse <= 1:
            raise ConfigurationError(
                "Expected data_reuse as a number from 0 (members share no data) to 1 (they share "
                f"all), got {self.reuse!r}."
            )

    @property
    def is_common(self) -> bool:
        """True if all members see the same rows."""
        return self.members == 1 or self.reuse == 1

    @property
    def factor(self) -> float:
        """Rows per step over rows of one member: from 1 to the number of members."""
        return float(self.reuse + (1 - self.reuse) * self.members)

    def ring(self, batch_size: int) -> int:
        """Rows that one step of an online training needs."""
        return ceil(self.factor * batch_size - _FUZZ)

    def starts(self, num_rows: int) -> list[int]:
        """First row of each member in a ring of `ring` rows."""
        return [round(k * num_rows / self.members) for k in range(self.members)]

    def window(self, num_rows: int) -> int:
        """Rows of finite data that a member has.

        At a reuse of 0 some have one row less, so that no row is used twice.
        """
        return ceil(num_rows / self.factor - _FUZZ)

    def windows(self, num_rows: int, seed: int) -> list[Array] | None:
        """Rows of finite data of each member; None if all members have all rows."""
        if self.is_common:
            return None
        if num_rows < self.members:
            raise DataError(
                f"Expected at least one simulation for each of {self.members} members, got {num_rows} in all."
            )
        order = seeding.generator(seed, "rows of members").permutation(num_rows)
        starts = self.starts(num_rows)
        ends = [start + self.window(num_rows) for start in starts]
        if self.reuse == 0:
            ends = [*starts[1:], num_rows]
        return [order[np.arange(start, end) % num_rows] for start, end in zip(starts, ends, strict=True)]


class PreparedRings(Protocol):
    """Prepared batches with the rows of a ring each."""

    @property
    def fingerprint(self) -> str: ...

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[dict[str, Tensor]]: ...


class RingBatches:
    """Batches of rings: consecutive rows of each ring for every member."""

    def __init__(self, rings: PreparedRings, sharing: Sharing, batch_size: int) -> None:
        self.rings, self.sharing, self.batch_size = rings, sharing, batch_size
        self.num_rows = sharing.ring(batch_size)
        self.fingerprint = f"{rings.fingerprint}, {batch_size} of them for each of {sharing.members} members"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self.rings.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.rings)

    def __iter__(self) -> Iterator[list[dict[str, Tensor]]]:
        rows = self._rows(self.num_rows)
        for ring in self.rings:
            n = len(next(iter(ring.values())))
            yield [
                {name: value[member_rows] for name, value in ring.items()}
                for member_rows in (rows if n == self.num_rows else self._rows(n))
            ]

    def _rows(self, num_rows: int) -> list[Tensor]:
        """Rows of each member in a ring.

        If a ring lost failed simulations, members have proportionally fewer.
        """
        size = max(1, num_rows * self.batch_size // self.num_rows)
        return [(start + torch.arange(size)) % num_rows for start in self.sharing.starts(num_rows)]


def digest_of(windows: list[Array] | None) -> bytes:
    """Part of a batch fingerprint about the rows of members; empty if all have all rows."""
    return (
        b""
        if windows is None
        else b"members" + b"".join(b"|" + window.astype(np.int64).tobytes() for window in windows)
    )


def whole_batches(parts: list[Any], batch_size: int) -> int:
    """Number of batches that every member can fill from its part, a dict of arrays of equal length."""
    return min(len(next(iter(part.values()))) for part in parts) // batch_size
