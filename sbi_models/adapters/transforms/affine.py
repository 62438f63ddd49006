"""z = a x + b: scale, shift and standardize. log |dz/dx| = log |a| in each component."""

from typing import Any

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Elementwise, Names, Tensors, floating, require
from sbi_models.adapters.transforms.numbers import (
    ROUNDING,
    Numbers,
    as_numbers,
    check_width,
    per_component,
    power_of_two_like,
)
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError, DataError, NotFittedError


class _By(Elementwise):
    """A step with one number, or one for each component of the last axis."""

    def __init__(self, names: Names, by: Any) -> None:
        super().__init__(names)
        self.by: Numbers = as_numbers(by, f"{self.kind} by")

    def fitted(self, batch: Tensors) -> "_By":
        require(self.names, batch, self.kind)
        for name in self.names:
            check_width(self.by, name, batch[name], f"{self.kind} by")
        return self

    def _by(self, name: str, value: Tensor) -> Tensor:
        return per_component(self.by, name, value, f"{self.kind} by")

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "by": self.by}


@register_transform("scale")
class Scale(_By):
    """Scaling z = by x.

    A support that matters is best constrained before, in raw values, so that rounding cannot leave it.
    """

    def __init__(self, names: Names, by: Any) -> None:
        super().__init__(names, by)
        if 0.0 in (self.by if isinstance(self.by, list) else [self.by]):
            raise ConfigurationError(
                f"Expected factors other than 0 for {', '.join(self.names)}: scaling by 0 cannot be undone."
            )

    def _map(self, name: str, value: Tensor) -> Tensor:
        return value * self._by(name, value)

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        return value / self._by(name, value)

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        return self._by(name, value).abs().log()


@register_transform("shift")
class Shift(_By):
    """z = x + by; the slope is 1."""

    def _map(self, name: str, value: Tensor) -> Tensor:
        return value + self._by(name, value)

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        return value - self._by(name, value)

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        del name
        return torch.zeros_like(value)


@register_transform("standardize")
class Standardize(Elementwise):
    """z = (x - mean) / sd with moments of each component of the last axis, over all rows and other axes.

    Moments that are given hold for every named variable; those that are not given are computed from the first
    data that the step is fitted to, missing values (NaN) aside, and never change again. A constant component
    keeps an sd of 1.
    """

    def __init__(
        self,
        names: Names,
        mean: Any = None,
        sd: Any = None,
        moments: dict[str, dict[str, list[float]]] | None = None,
    ) -> None:
        super().__init__(names)
        self.mean = None if mean is None else as_numbers(mean, "mean")
        self.sd = None if sd is None else as_numbers(sd, "sd")
        if self.sd is not None and min(self.sd if isinstance(self.sd, list) else [self.sd]) <= 0:
            raise ConfigurationError(f"Expected positive sd for {', '.join(self.names)}, got {sd!r}.")
        self.moments = moments

    def fitted(self, batch: Tensors) -> "Standardize":
        require(self.names, batch, self.kind)
        for name in self.names:
            for numbers, what in ((self.mean, "mean"), (self.sd, "sd")):
                check_width(numbers, name, batch[name], what)
        if self.moments is not None:
            return self
        return Standardize(
            self.names,
            self.mean,
            self.sd,
            {name: _moments(name, floating(batch[name])) for name in self.names},
        )

    def _numbers(self, name: str, value: Tensor) -> tuple[Tensor, Tensor]:
        if self.moments is None and (self.mean is None or self.sd is None):
            raise NotFittedError(
                f"The adapter has not seen data: the moments of {name!r} are unknown. Call "
                "fitted(batch), or give them."
            )
        learned = self.moments[name] if self.moments else {}
        mean = self.mean if self.mean is not None else learned["mean"]
        sd = self.sd if self.sd is not None else learned["sd"]
        return per_component(mean, name, value, "mean"), per_component(sd, name, value, "sd")

    def _map(self, name: str, value: Tensor) -> Tensor:
        mean, sd = self._numbers(name, value)
        return (value - mean) / sd

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        mean, sd = self._numbers(name, value)
        return value * sd + mean

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        return -self._numbers(name, value)[1].log()

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "mean": self.mean, "sd": self.sd, "moments": self.moments}


def _moments(name: str, value: Tensor) -> dict[str, list[float]]:
    """Mean and sd of each component of the last axis, NaN aside, as lists."""
    values = value.detach().to(torch.float64).reshape(-1, value.shape[-1])
    power = power_of_two_like(values)
    values = values / power
    mean = values.nanmean(dim=0)
    sd = (values - mean).square().nanmean(dim=0).sqrt()
    if not bool((mean.isfinite() & sd.isfinite()).all()):
        raise DataError(
            f"Expected finite values of {name!r} to compute moments from, got inf, overflow, or a "
            "component that is all NaN."
        )
    low, high = torch.where(values.isnan(), mean, values).aminmax(dim=0)
    varies = high - low > ROUNDING * torch.maximum(low.abs(), high.abs())
    sd = torch.where(varies, sd * power, torch.ones_like(sd))
    return {"mean": (mean * power).tolist(), "sd": sd.tolist()}
