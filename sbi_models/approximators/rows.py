"""Conversion of rows: raw variables to tensors, blocks that fit into memory, components as variables."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sbi_models.arguments import positive_int
from sbi_models.errors import DataError
from sbi_models.ragged import is_ragged, padded
from sbi_models.types import Variables

_ROWS = 4096
"""Default number of rows in one call of a network."""


def as_tensors(variables: Variables, device: torch.device | None = None) -> dict[str, Tensor]:
    """Raw variables as float64 tensors."""
    return {
        name: torch.as_tensor(value, dtype=torch.float64, device=device) for name, value in variables.items()
    }


def padded_tensors(
    variables: Variables, any_length: Mapping[str, int], device: torch.device | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw variables as float64 tensors, and the masks of those of any length: (n, length), True for elements.

    Data sets of different lengths are padded. `any_length` is the number of axes of each that may have any.
    """
    arrays, masks = dict(variables), {}
    for name, axes in any_length.items():
        if name in variables:
            array, mask = padded(variables[name], axes)
            array = array[..., None] if array.ndim == 1 + axes else array  # elements that are numbers
            arrays[name], masks[name] = array, torch.as_tensor(mask, device=device)
    ragged = [name for name, value in arrays.items() if is_ragged(value)]
    if ragged:
        raise DataError(
            f"Expected data sets of one length in {ragged[0]!r}, got several. Only what a summary network "
            "takes may differ in length: list it in summary_variables."
        )
    return as_tensors(arrays, device), masks


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
