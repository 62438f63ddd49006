"""Several variables into one along the last axis, and one into several."""

from typing import Any

import torch

from sbi_models.adapters.transforms.base import (
    Names,
    Tensors,
    Transform,
    all_or_none,
    checked_names,
    require,
    require_new,
)
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError, DataError, NotFittedError


@register_transform("concatenate")
class Concatenate(Transform):
    """Joins variables (n, ..., d_i) along their last axis under a new name, (n, ..., sum of d_i)."""

    def __init__(self, names: Names, into: str, widths: list[int] | None = None) -> None:
        if not isinstance(into, str) or not into:
            raise ConfigurationError(f"Expected the name of the joined variable as a string, got {into!r}.")
        self.names, self.into, self.widths = checked_names(names, f"join into {into!r}"), into, widths

    def fitted(self, batch: Tensors) -> "Concatenate":
        require(self.names, batch, self.into)
        if self.into not in self.names:
            require_new(self.into, batch, self.kind)
        leading = {tuple(batch[name].shape[1:-1]) for name in self.names}
        if len(leading) > 1 or any(batch[name].ndim < 2 for name in self.names):
            listed = ", ".join(f"{name} {tuple(batch[name].shape)}" for name in self.names)
            raise DataError(
                f"Expected the variables of {self.into!r} to differ in their last axis only, got {listed}. "
                "Reshape or repeat them in the simulator, or with expand_dims and broadcast of the adapter."
            )
        return Concatenate(self.names, self.into, [batch[name].shape[-1] for name in self.names])

    def forward(self, batch: Tensors) -> Tensors:
        if not all_or_none(self.names, batch, f"joined into {self.into!r}"):
            return batch
        rest = {key: value for key, value in batch.items() if key not in self.names}
        return rest | {self.into: torch.cat([batch[name] for name in self.names], dim=-1)}

    def inverse(self, batch: Tensors) -> Tensors:
        if self.into not in batch:
            return batch
        if self.widths is None:
            raise NotFittedError(
                f"The adapter has not seen data: the widths of {', '.join(self.names)} are "
                "unknown. Call fitted(batch)."
            )
        rest = {key: value for key, value in batch.items() if key != self.into}
        return rest | dict(zip(self.names, torch.split(batch[self.into], self.widths, dim=-1), strict=True))

    def makes(self) -> list[str]:
        return [self.into]

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "into": self.into, "widths": self.widths}


@register_transform("split")
class Split(Transform):
    """Splits a variable (n, ..., d) along its last axis into several, (n, ..., d_i), by default equal."""

    def __init__(self, name: str, into: Names, widths: list[int] | None = None) -> None:
        self.name, self.into = name, checked_names(into, f"make of {name!r}")
        self.widths = None if widths is None else list(widths)
        if self.widths is not None and (
            len(self.widths) != len(self.into) or not all(type(w) is int and w > 0 for w in self.widths)
        ):
            raise ConfigurationError(
                f"Expected one positive width for each of {', '.join(self.into)}, got {widths!r}."
            )

    def fitted(self, batch: Tensors) -> "Split":
        require([self.name], batch, self.kind)
        width, parts = batch[self.name].shape[-1], len(self.into)
        widths = self.widths or [width // parts] * parts
        if batch[self.name].ndim < 2 or sum(widths) != width or not width:
            raise DataError(
                f"Expected {self.name!r} to split into {', '.join(self.into)} of widths {widths}, got shape "
                f"{tuple(batch[self.name].shape)}. Give widths that add up to the last axis."
            )
        return Split(self.name, self.into, widths)

    def forward(self, batch: Tensors) -> Tensors:
        if self.name not in batch:
            return batch
        if self.widths is None:
            raise NotFittedError(
                f"The adapter has not seen data: the widths of {', '.join(self.into)} are unknown. "
                "Call fitted(batch)."
            )
        rest = {key: value for key, value in batch.items() if key != self.name}
        for name in self.into:
            require_new(name, rest, self.kind)
        return rest | dict(zip(self.into, torch.split(batch[self.name], self.widths, dim=-1), strict=True))

    def inverse(self, batch: Tensors) -> Tensors:
        if not all_or_none(self.into, batch, f"parts of {self.name!r}"):
            return batch
        rest = {key: value for key, value in batch.items() if key not in self.into}
        return rest | {self.name: torch.cat([batch[name] for name in self.into], dim=-1)}

    def makes(self) -> list[str]:
        return list(self.into)

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "into": self.into, "widths": self.widths}
