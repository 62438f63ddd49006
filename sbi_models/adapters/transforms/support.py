"""Supports of transforms: refuse values outside, bring rounded ones back inside."""

from typing import NamedTuple

import torch
from torch import Tensor

from sbi_models.errors import DataError


class Requirement(NamedTuple):
    """Requirement of a step on the values of a variable of n rows.

    Attributes:
        inside: booleans (n, ...), True where a value will do.
        expected: the support, for instance "greater than 0.0".
        cure: what to do, a sentence.
        value: the values (n, ...), of which the first offending one is shown.
    """

    inside: Tensor
    expected: str
    cure: str
    value: Tensor

    @property
    def rows(self) -> Tensor:
        """True for rows all of whose values will do, shape (n,)."""
        return self.inside.flatten(start_dim=1).all(dim=1) if self.inside.ndim > 1 else self.inside

    def refuse(self, name: str) -> None:
        """Raise DataError unless all values of the variable of that name will do."""
        if bool(self.inside.all()):
            return
        outside = ~self.rows
        example = self.value.detach()[~self.inside].reshape(-1)[0].item()
        raise DataError(
            f"Expected every value of variable {name!r} {self.expected}, got {int(outside.sum())} of "
            f"{len(outside)} rows outside (first row {int(outside.nonzero()[0])}, for instance "
            f"{example!r}). {self.cure}"
        )


def just_above(bound: Tensor) -> Tensor:
    """The least floating-point number greater than each bound; no gradient."""
    return torch.nextafter(bound.detach(), torch.full_like(bound, torch.inf))


def just_below(bound: Tensor) -> Tensor:
    """The greatest floating-point number less than each bound; no gradient."""
    return torch.nextafter(bound.detach(), torch.full_like(bound, -torch.inf))


def largest(like: Tensor) -> Tensor:
    """The largest finite number of the dtype of `like`, a scalar tensor."""
    return like.new_tensor(torch.finfo(like.dtype).max)


def clamp(value: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """Values brought into [lowest, highest]; infinities become finite, NaN stays."""
    return torch.minimum(torch.maximum(value, lowest), highest)
