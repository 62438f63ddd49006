"""Missing values."""

from typing import Any, Literal

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import (
    Tensors,
    Transform,
    checked_names,
    floating,
    require,
    require_new,
)
from sbi_models.adapters.transforms.numbers import (
    Numbers,
    as_numbers,
    check_width,
    per_component,
    power_of_two_like,
)
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError, NotFittedError


@register_transform("nan_to_num")
class NanToNum(Transform):
    """Replaces NaN by a number and, if a mask is named, adds that variable.

    The mask is 1 where there was a value, 0 where it was missing.

    The number is one for all components, a list with one for each component of the last axis, or "mean": the
    means of the components in the first data that the step is fitted to, missing values aside, which never
    change again.

    The mask has the shape and dtype of the variable, (n, ...), so that it can be concatenated with it. The
    inverse puts NaN back where a mask is 0 and takes the mask out; without one it leaves the numbers.
    Infinities stay. No bijection: it has no density.
    """

    has_density = False

    def __init__(
        self, name: str, value: float | list[float] | Literal["mean"] = 0.0, mask: str | None = None
    ) -> None:
        self.name = checked_names(name, self.kind)[0]
        is_mean = isinstance(value, str) and value == "mean"
        number: Numbers | Literal["mean"] = "mean" if is_mean else as_numbers(value, 'value (or "mean")')
        if (
            not isinstance(name, str)
            or mask == name
            or not (mask is None or (isinstance(mask, str) and mask))
        ):
            raise ConfigurationError(
                f"Expected one variable, a number to fill in, and another name for the mask, got {name!r}, "
                f"{value!r}, {mask!r}."
            )
        self.value, self.mask = number, mask

    def fitted(self, batch: Tensors) -> "NanToNum":
        require([self.name], batch, self.kind)
        if isinstance(self.value, str):
            return NanToNum(self.name, _means(floating(batch[self.name])), self.mask)
        check_width(self.value, self.name, batch[self.name], "value")
        return self

    def forward(self, batch: Tensors) -> Tensors:
        if self.name not in batch:
            return batch
        raw = batch[self.name]
        masks = {}
        if self.mask is not None:
            require_new(self.mask, batch, self.kind)
            masks = {self.mask: (~raw.isnan()).to(raw.dtype)}
        filled = torch.where(raw.isnan(), self._filling(raw), raw)
        return {name: filled if name == self.name else value for name, value in batch.items()} | masks

    def _filling(self, raw: Tensor) -> Tensor:
        """What stands in the missing places, of a shape that broadcasts to that of the variable."""
        if isinstance(self.value, str):
            raise NotFittedError(
                f"The adapter has not seen data: the mean of {self.name!r} is unknown. Call fitted(batch), "
                "or give a number as value."
            )
        return per_component(self.value, self.name, raw, "value")

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


def _means(value: Tensor) -> Numbers:
    """Mean of each component of the last axis of (n, ..., d), or of all of (n,); NaN aside.

    A component without a value has the mean of all others, or 0.
    """
    values = value.detach().to(torch.float64).reshape(-1, value.shape[-1] if value.ndim > 1 else 1)
    power = power_of_two_like(values)
    means = (values / power).nanmean(dim=0) * power
    means = torch.where(means.isnan(), means.nanmean().nan_to_num(0.0), means)
    return [float(mean) for mean in means] if value.ndim > 1 else float(means)
