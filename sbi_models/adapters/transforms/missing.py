"""Missing values."""

from typing import Any

import torch

from sbi_models.adapters.transforms.base import Tensors, Transform, checked_names, require, require_new
from sbi_models.adapters.transforms.numbers import as_numbers
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError


@register_transform("nan_to_num")
class NanToNum(Transform):
    """Replaces NaN by a number and, if a mask is named, adds that variable.

    The mask is 1 where there was a value, 0 where it was missing.

    The mask has the shape and dtype of the variable, (n, ...), so that it can be concatenated with it. The
    inverse puts NaN back where a mask is 0 and takes the mask out; without one it leaves the numbers.
    Infinities stay. No bijection: it has no density.
    """

    has_density = False

    def __init__(self, name: str, value: float = 0.0, mask: str | None = None) -> None:
        self.name = checked_names(name, self.kind)[0]
        number = as_numbers(value, "value")
        if (
            not isinstance(name, str)
            or isinstance(number, list)
            or mask == name
            or not (mask is None or (isinstance(mask, str) and mask))
        ):
            raise ConfigurationError(
                f"Expected one variable, one number and another name for the mask, got {name!r}, "
                f"{value!r}, {mask!r}."
            )
        self.value, self.mask = number, mask

    def fitted(self, batch: Tensors) -> "NanToNum":
        require([self.name], batch, self.kind)
        return self

    def forward(self, batch: Tensors) -> Tensors:
        if self.name not in batch:
            return batch
        raw = batch[self.name]
        masks = {}
        if self.mask is not None:
            require_new(self.mask, batch, self.kind)
            masks = {self.mask: (~raw.isnan()).to(raw.dtype)}
        filled = torch.where(raw.isnan(), torch.full_like(raw, self.value), raw)
        return {name: filled if name == self.name else value for name, value in batch.items()} | masks

    def inverse(self, batch: Tensors) -> Tensors:
        if self.mask is None or self.mask not in batch:
            return batch
        rest = {name: value for name, value in batch.items() if name != self.mask}
        if self.name in rest:
            rest[self.name] = torch.where(
                batch[self.mask] > 0.5, rest[self.name], torch.full_like(rest[self.name], torch.nan)
            )
        return rest

    def carried(self, batch: Tensors, slopes: Tensors) -> Tensors:
        forward = self.forward(batch)
        return {
            n: slopes[n] if n in slopes and n != self.name else torch.full_like(forward[n], torch.nan)
            for n in forward
        }

    def makes(self) -> list[str]:
        return [] if self.mask is None else [self.mask]

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "value": self.value, "mask": self.mask}
