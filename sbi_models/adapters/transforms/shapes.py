"""Axes that come and go; no number changes."""

from typing import Any

from torch import Tensor

from sbi_models.adapters.transforms.base import Names, PerVariable, Tensors, require
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError, DataError, NotFittedError


class _AtAxis(PerVariable):
    """A step at one axis; axis 0, that of the rows, stays where it is."""

    def __init__(self, names: Names, axis: int) -> None:
        super().__init__(names)
        if type(axis) is not int or axis == 0:
            raise ConfigurationError(
                f"Expected axis of {self.kind} as an integer other than 0, which is that of the "
                f"rows, got {axis!r}."
            )
        self.axis = axis

    def fitted(self, batch: Tensors) -> "_AtAxis":
        super().fitted(batch)
        for name in self.names:
            self._map(name, batch[name])
        return self

    def _checked(self, name: str, value: Tensor, axes: int) -> int:
        """The axis counted from the front in a shape of so many axes."""
        axis = self.axis if self.axis > 0 else self.axis + axes
        if not 0 < axis < axes:
            raise DataError(
                f"Expected an axis after that of the rows in {self.kind} of {name!r}, "
                f"{tuple(value.shape)}, got {self.axis}."
            )
        return axis

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "axis": self.axis}


@register_transform("expand_dims")
class ExpandDims(_AtAxis):
    """Inserts an axis of length 1 at position `axis` of the new shape: (n, d), axis -1, to (n, d, 1)."""

    def _map(self, name: str, value: Tensor) -> Tensor:
        return value.unsqueeze(self._checked(name, value, value.ndim + 1))

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        return value.squeeze(self._checked(name, value, value.ndim))


@register_transform("squeeze")
class Squeeze(_AtAxis):
    """Takes out an axis of length 1 at position `axis` of the old shape: (n, d, 1), axis -1, to (n, d)."""

    def _map(self, name: str, value: Tensor) -> Tensor:
        axis = self._checked(name, value, value.ndim)
        if value.shape[axis] != 1 or value.ndim == 2:
            raise DataError(
                f"Expected {name!r} of length 1 along axis {self.axis}, and another axis after that of the "
                f"rows, got shape {tuple(value.shape)}. Name another axis, or leave out squeeze."
            )
        return value.squeeze(axis)

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        return value.unsqueeze(self._checked(name, value, value.ndim + 1))


@register_transform("as_set")
class AsSet(PerVariable):
    """Reshapes (n, m) to a set of m numbers, (n, m, 1), for summary networks; (n, m, d) stays."""

    def __init__(self, names: Names, widened: list[str] | None = None) -> None:
        super().__init__(names)
        self.widened = widened

    def fitted(self, batch: Tensors) -> "AsSet":
        require(self.names, batch, self.kind)
        for name in self.names:
            self._map(name, batch[name])
        return type(self)(self.names, [name for name in self.names if batch[name].ndim == 2])

    def _map(self, name: str, value: Tensor) -> Tensor:
        if value.ndim not in (2, 3):
            raise DataError(
                f"Expected {name!r} of shape (n, length) or (n, length, features) in {self.kind}, "
                f"got {tuple(value.shape)}."
            )
        return value[..., None] if value.ndim == 2 else value

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        if self.widened is None:
            raise NotFittedError(
                f"The adapter has not seen data: the shape of {name!r} is unknown. Call fitted(batch)."
            )
        return value[..., 0] if name in self.widened else value

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "widened": self.widened}


@register_transform("as_time_series")
class AsTimeSeries(AsSet):
    """Reshapes (n, m) to a series of m numbers in time, (n, m, 1), for summary networks; (n, m, d) stays."""
