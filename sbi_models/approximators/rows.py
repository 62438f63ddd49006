"""Conversion of rows: raw variables to tensors, blocks that fit into memory, components as variables."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sbi_models.arguments import positive_int
from sbi_models.types import Variables

_ROWS = 4096
"""Default number of rows in one call of a network."""


def as_tensors(variables: Variables, device: torch.device | None = None) -> dict[str, Tensor]:
    """Raw variables as float64 tensors."""
    return {
        name: torch.as_tensor(value, dtype=torch.float64, device=device) for name, value in variables.items()
    }


def by_component(variables: Variables) -> Variables:
    """Split variables (..., d) into their components, name_0 ... name_(d-1), of shape (..., 1)."""
    return {
        f"{name}_{i}": value[..., i : i + 1]
        for name, value in variables.items()
        for i in range(value.shape[-1])
    }


def chunks(prepared: dict[str, Tensor], batch_size: int | None) -> Iterator[slice]:
    """Slices of all rows of prepared tensors, `batch_size` rows each."""
    step = positive_int(batch_size, "batch_size") if batch_size is not None else _ROWS
    for start in range(0, len(next(iter(prepared.values()))), step):
        yield slice(start, start + step)
