"""log and square root of positive variables."""

import math

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Elementwise
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.adapters.transforms.support import Requirement, clamp, just_above, largest


@register_transform("log")
class Log(Elementwise):
    """z = log x for x > 0, onto the real line; log |dz/dx| = -log x."""

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        del name
        cure = "Drop those rows, or shift the variable before the logarithm."
        return [Requirement(value > 0, "greater than 0.0 (adapter.log)", cure, value)]

    def _map(self, name: str, value: Tensor) -> Tensor:
        self._check(name, value)
        return value.log()

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        del name
        return clamp(value.exp(), just_above(torch.zeros_like(value)), largest(value))

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        return -self._map(name, value)


@register_transform("sqrt")
class Sqrt(Elementwise):
    """z = sqrt(x) for x >= 0; log |dz/dx| = -log 2 - log(x) / 2, infinite at 0.

    Made for counts and other conditions. It does not reach the negative numbers: for a parameter, whose draws
    can be any number, `log` or `constrain(lower=0)` is right; the inverse takes a negative draw z to z
    squared.
    """

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        del name
        cure = "Drop those rows, or shift the variable before the root."
        return [Requirement(value >= 0, "at least 0.0 (adapter.sqrt)", cure, value)]

    def _map(self, name: str, value: Tensor) -> Tensor:
        self._check(name, value)
        return value.sqrt()

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        del name
        return torch.minimum(value.square(), largest(value))

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        del name
        return -math.log(2.0) - 0.5 * value.log()
