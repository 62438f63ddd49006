"""One value repeated along the axes of another variable."""

from typing import Any

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Names, Tensors, Transform, checked_names, require
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError, DataError, NotFittedError

Shape = list[int]


@register_transform("broadcast")
class Broadcast(Transform):
    """Repeats (n, d) along the middle axes of another variable (n, m, ..., c), to (n, m, ..., d).

    The result is ready to be concatenated with that variable.

    Middle axes are all but the first and the last; those that the variable has already must be of the same
    length, or 1. The inverse takes the first of the copies. No bijection: it has no density.
    """

    has_density = False

    def __init__(
        self, names: Names, to: str, over: Shape | None = None, middles: dict[str, Shape] | None = None
    ) -> None:
        self.names, self.to, self.over, self.middles = checked_names(names, self.kind), to, over, middles
        if to in self.names:
            raise ConfigurationError(f"Expected another variable to broadcast {to!r} to, got itself.")

    def fitted(self, batch: Tensors) -> "Broadcast":
        require([*self.names, self.to], batch, self.kind)
        over = list(batch[self.to].shape[1:-1])
        for name in self.names:
            _expanded(name, batch[name], over, self.to)
        return Broadcast(
            self.names, self.to, over, {name: list(batch[name].shape[1:-1]) for name in self.names}
        )

    def forward(self, batch: Tensors) -> Tensors:
        over = list(batch[self.to].shape[1:-1]) if self.to in batch else self.over
        if over is None and any(name in batch for name in self.names):
            raise NotFittedError(
                f"The adapter has not seen data: the shape of {self.to!r} is unknown. Call fitted(batch)."
            )
        return {
            name: _expanded(name, value, over or [], self.to) if name in self.names else value
            for name, value in batch.items()
        }

    def inverse(self, batch: Tensors) -> Tensors:
        return {
            name: self._first(name, value) if name in self.names else value for name, value in batch.items()
        }

    def _first(self, name: str, value: Tensor) -> Tensor:
        if self.middles is None:
            raise NotFittedError(
                f"The adapter has not seen data: the shape of {name!r} is unknown. Call fitted(batch)."
            )
        middle = self.middles[name]
        for _ in range(value.ndim - 2 - len(middle)):
            value = value[:, 0]
        for axis, length in enumerate(middle, start=1):
            value = value.narrow(axis, 0, 1) if length == 1 else value
        return value

    def carried(self, batch: Tensors, slopes: Tensors) -> Tensors:
        forward = self.forward(batch)
        return {
            name: torch.full_like(forward[name], torch.nan) if name in self.names else slope
            for name, slope in slopes.items()
        }

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "to": self.to, "over": self.over, "middles": self.middles}


def _expanded(name: str, value: Tensor, over: Shape, to: str) -> Tensor:
    middle = list(value.shape[1:-1])
    new = len(over) - len(middle)
    if (
        value.ndim < 2
        or new < 0
        or any(length not in (1, other) for length, other in zip(middle, over[new:], strict=True))
    ):
        raise DataError(
            f"Expected {name!r} to repeat along the middle axes {tuple(over)} of {to!r}, got shape "
            f"{tuple(value.shape)}. Its own middle axes must be missing, 1, or of the same length, counted "
            "from the last."
        )
    return value.reshape(len(value), *[1] * new, *value.shape[1:]).expand(len(value), *over, value.shape[-1])
