"""Noise for sampling, from one stream or from one stream a data set."""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for everything, or one for each row of the leading axis, so that a row's draws do not depend
on its neighbours."""


def normal(shape: tuple[int, ...], generator: Generators, like: Tensor) -> Tensor:
    """Standard normal noise, like `like` in type and device; several generators give a row each."""
    if generator is None or isinstance(generator, torch.Generator):
        device = like.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
    rows = [torch.randn(shape[1:], generator=g, device=g.device, dtype=like.dtype) for g in generator]
    return torch.stack(rows).to(like.device)
