"""Numbers of a transform: one for all components, or a list with one for each component of the last axis."""

import math
from typing import Any

import torch
from torch import Tensor

from sbi_models.errors import ConfigurationError, DataError

Numbers = float | list[float]

ROUNDING = 2.0**-46
"""What numbers in float64 may differ by, relative to the largest, and still be called constant: 64 units of
the last place."""


def as_numbers(value: Any, what: str) -> Numbers:
    """A finite number, or a list of them, as JSON holds them.

    Lists come from lists, tuples, NumPy arrays and torch tensors.

    >>> as_numbers((1, 2.5), "by")
    [1.0, 2.5]
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if not listed or not all(
        isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item)
        for item in listed
    ):
        raise ConfigurationError(
            f"Expected {what} as a finite number, or a list with one for each component, got {value!r}."
        )
    numbers = [float(item) for item in listed]
    return numbers if isinstance(value, list | tuple) else numbers[0]


def check_width(numbers: Any, name: str, value: Tensor, what: str) -> None:
    """Raise DataError if a list has not one number for each component of the last axis of the variable."""
    if isinstance(numbers, list) and len(numbers) != value.shape[-1]:
        raise DataError(
            f"Expected {what} with one number for each of the {value.shape[-1]} components of {name!r}, "
            f"shape {tuple(value.shape)}, got {len(numbers)}. Give one number for all of them, or a list of "
            f"{value.shape[-1]}."
        )


def per_component(numbers: Numbers, name: str, value: Tensor, what: str) -> Tensor:
    """Numbers as a tensor that broadcasts against the variable, of its dtype and on its device."""
    check_width(numbers, name, value, what)
    return torch.as_tensor(numbers, dtype=value.dtype, device=value.device)


def power_of_two_like(values: Tensor) -> Tensor:
    """Power of 2 near the largest magnitude of each column of values (n, d), (d,); 1 for zeros.

    Dividing by it is exact, and squares of what is left neither overflow nor vanish: moments are right in any
    unit.
    """
    largest = values.nan_to_num(0.0).abs().amax(dim=0)
    exponent = torch.frexp(largest).exponent.clamp(-1000, 1000)
    return torch.where(largest > 0, torch.ldexp(torch.ones_like(largest), exponent), 1.0)


def checked_units(units: dict[str, list[float]] | None, what: str) -> dict[str, list[float]] | None:
    """Units of each component by variable; raises ConfigurationError unless they are positive and finite."""
    if any(not 0 < unit < math.inf for listed in (units or {}).values() for unit in listed):
        raise ConfigurationError(
            f"Expected positive units of {what}, got {units!r}. Leave them out: they are learned from data."
        )
    return units


def unit_of(distances: Tensor) -> float:
    """The power of 2 nearest to the median of positive distances (n,)."""
    return 2.0 ** round(
        math.log2(float(distances.detach().to(torch.float64).median().clamp(2.0**-1000, 2.0**1000)))
    )
