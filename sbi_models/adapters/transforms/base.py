"""Base classes of adapter transforms.

To write a transform of this package: subclass `PerVariable` (variables are changed one by one),
`Elementwise` (and the map has a slope in each component) or `Transform` (variables are joined, split,
renamed), put `@register_transform("kind")` above it, implement the abstract methods, and `config` if the
constructor takes more than names, import it in `__init__.py`, add a method to `Adapter`, and add a case to
`tests/adapters/transform_cases.py`. A user's own transform needs the first half of that alone: `Adapter.then`
adds it; see `Transform`, which `sbi_models.adapters` has, and the others `sbi_models.adapters.transforms`.

Log slopes: the log-determinant of a chain is kept component by component. For each variable, a tensor of the
shape of the variable holds log |d z_k / d x_k|, the diagonal of a Jacobian that is triangular for every map
of this package; its sum over a row is log |det J| of that row. Joining, splitting and renaming move log
slopes exactly as they move values, so that they reach the role by name.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from sbi_models.adapters.transforms.support import Requirement
from sbi_models.errors import ConfigurationError, DataError, suggest

Tensors = dict[str, Tensor]
Names = str | list[str] | tuple[str, ...]


def checked_names(names: Any, what: str) -> list[str]:
    """One name or several as a list of different strings; raises ConfigurationError otherwise."""
    listed = [names] if isinstance(names, str) else list(names) if isinstance(names, list | tuple) else []
    if (
        not listed
        or len(set(map(str, listed))) != len(listed)
        or not all(isinstance(name, str) and name for name in listed)
    ):
        raise ConfigurationError(f"Expected one or more different variables to {what}, got {names!r}.")
    return listed


def require(names: list[str], batch: Tensors, what: str) -> None:
    """Raise DataError unless all variables are in the batch; `what` says who needs them."""
    for name in names:
        if name not in batch:
            raise DataError(f"Variable {name!r} ({what}) is not in the data. {suggest(name, batch)}")


def require_new(name: str, batch: Tensors, what: str) -> None:
    """Raise DataError if a variable that a step is about to make is in the batch already."""
    if name in batch:
        raise DataError(
            f"Expected {what} to make a new variable {name!r}, but the data hold one of that name. "
            "Choose another name."
        )


def all_or_none(names: list[str], batch: Tensors, what: str) -> bool:
    """Whether all variables are in the batch, not none; raises DataError if only some are."""
    there = [name for name in names if name in batch]
    if there and len(there) < len(names):
        missing = ", ".join(repr(name) for name in names if name not in there)
        raise DataError(
            f"Expected all or none of {', '.join(map(repr, names))} ({what}), got {there} without "
            f"{missing}. Add {missing}."
        )
    return bool(there)


def floating(value: Tensor) -> Tensor:
    """The tensor itself, or as float64 if it holds integers or booleans."""
    return value if value.is_floating_point() else value.to(torch.float64)


class Transform(ABC):
    """A step from variables to variables, all of shape (n, ...) with one leading axis of rows.

    To write your own: implement `forward` and `inverse`, `carried` if inferred variables pass through it, and
    `config`, the arguments that build it again. Register it, so that models with it can be saved and loaded:

    >>> import math
    >>> from sbi_models.adapters import Adapter, Transform, register_transform
    >>> @register_transform("log2")
    ... class Log2(Transform):
    ...     def __init__(self, name: str) -> None:
    ...         self.name = name
    ...
    ...     def forward(self, batch):
    ...         return {key: x.log2() if key == self.name else x for key, x in batch.items()}
    ...
    ...     def inverse(self, batch):
    ...         return {key: 2.0**z if key == self.name else z for key, z in batch.items()}
    ...
    ...     def carried(self, batch, slopes):
    ...         log_slope = -(batch[self.name] * math.log(2)).log()
    ...         return {key: s + log_slope if key == self.name else s for key, s in slopes.items()}
    ...
    ...     def config(self):
    ...         return {"name": self.name}
    >>> adapter = Adapter().then(Log2("rate"))
    >>> adapter.forward({"rate": torch.tensor([[1.0], [8.0]])})["rate"].tolist()
    [[0.0], [3.0]]
    >>> Adapter.from_json(adapter.to_json())
    Adapter(log2)
    """

    kind: ClassVar[str] = "transform"
    """Registered name, which `register_transform` sets."""
    has_density: ClassVar[bool] = True
    """False if the step is no bijection, so that no density passes through it."""

    def fitted(self, batch: Tensors) -> "Transform":
        """This step with names checked, and shapes or moments learned, once, from raw training data."""
        del batch
        return self

    def inside(self, batch: Tensors) -> Tensor:
        """Booleans (n,): which rows lie inside the support of this step, so that `forward` takes them."""
        first = next(iter(batch.values()))
        return torch.ones(len(first), dtype=torch.bool, device=first.device)

    @abstractmethod
    def forward(self, batch: Tensors) -> Tensors:
        """Raw to adapted; missing variables are passed over, so that conditions alone can be adapted."""

    @abstractmethod
    def inverse(self, batch: Tensors) -> Tensors:
        """Adapted to raw; missing variables are passed over, so that draws alone can be taken back."""

    def carried(self, batch: Tensors, slopes: Tensors) -> Tensors:
        """Log slopes (nats) of the variables of `forward(batch)`, given those of `batch`.

        By default they move like values.
        """
        del batch
        return self.forward(slopes)

    def makes(self) -> list[str]:
        """Names of the variables that only exist after this step."""
        return []

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything that rebuilds this step, as JSON."""


class PerVariable(Transform):
    """Base class of steps that change each of their variables by itself.

    Log slopes are moved as values are (views and reshapes).
    """

    def __init__(self, names: Names) -> None:
        self.names = checked_names(names, self.kind)

    def fitted(self, batch: Tensors) -> "PerVariable":
        require(self.names, batch, self.kind)
        return self

    def forward(self, batch: Tensors) -> Tensors:
        return {
            name: self._map(name, value) if name in self.names else value for name, value in batch.items()
        }

    def inverse(self, batch: Tensors) -> Tensors:
        return {
            name: self._unmap(name, value) if name in self.names else value for name, value in batch.items()
        }

    def carried(self, batch: Tensors, slopes: Tensors) -> Tensors:
        return {
            name: self._carry(name, batch[name], slope) if name in self.names else slope
            for name, slope in slopes.items()
        }

    def inside(self, batch: Tensors) -> Tensor:
        inside = super().inside(batch)
        for name in self.names:
            if name in batch:
                for requirement in self._requirements(name, floating(batch[name])):
                    inside = inside & requirement.rows
        return inside

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        """Requirements on one raw variable, none by default; `_map` begins with `_check`."""
        del name, value
        return []

    def _check(self, name: str, value: Tensor) -> None:
        """Raise DataError unless one variable, raw, lies inside the support."""
        for requirement in self._requirements(name, value):
            requirement.refuse(name)

    @abstractmethod
    def _map(self, name: str, value: Tensor) -> Tensor:
        """One variable, raw to adapted."""

    @abstractmethod
    def _unmap(self, name: str, value: Tensor) -> Tensor:
        """One variable, adapted to raw."""

    def _carry(self, name: str, value: Tensor, slopes: Tensor) -> Tensor:
        """Log slopes of `_map(name, value)`, given those of `value`."""
        if not self.has_density:
            return torch.full_like(self._map(name, value), torch.nan)
        return self._map(name, slopes)

    def config(self) -> dict[str, Any]:
        """The names; with all other arguments, too, where the constructor takes more."""
        return {"names": self.names}


class Elementwise(PerVariable):
    """Base class of steps z = f(x) in every component, or with a triangular Jacobian, that keep the shape."""

    def forward(self, batch: Tensors) -> Tensors:
        return super().forward(
            {name: floating(value) if name in self.names else value for name, value in batch.items()}
        )

    def inverse(self, batch: Tensors) -> Tensors:
        return super().inverse(
            {name: floating(value) if name in self.names else value for name, value in batch.items()}
        )

    def _carry(self, name: str, value: Tensor, slopes: Tensor) -> Tensor:
        return slopes + self._log_slope(name, value)

    @abstractmethod
    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        """log |d z_k / d x_k| in nats at raw values, of a shape that broadcasts to that of the variable."""
