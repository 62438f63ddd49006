"""Where values may lie: refuse those outside, bring rounded ones back inside."""

import torch
from torch import Tensor

from sbi_models.errors import DataError


def refuse_outside(name: str, inside: Tensor, expected: str, cure: str, value: Tensor) -> None:
    """Raise DataError unless all entries of `inside` hold; both tensors have n leading rows.

    Args:
        name: the variable.
        inside: booleans (n, ...).
        expected: the support, for instance "greater than 0.0".
        cure: what to do, a sentence.
        value: the values (n, ...), of which the first offending one is shown.
    """
    if bool(inside.all()):
        return
    rows = ~inside.reshape(len(inside), -1).all(dim=1)
    example = value.detach()[~inside].reshape(-1)[0].item()
    raise DataError(
        f"Expected every value of variable {name!r} {expected}, got {int(rows.sum())} of {len(rows)} rows outside "
        f"(first row {int(rows.nonzero()[0])}, for instance {example!r}). {cure}"
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
