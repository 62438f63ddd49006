"""The steps of an adapter. Each is invertible, serialisable, and learns at most the shapes of its variables.

To write a transform: subclass `Transform`, give it a `kind`, implement `forward`, `inverse`, `config` and (unless it keeps volumes)
`log_abs_det`, and add it to `KINDS`.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from sbi_models.errors import ConfigurationError, DataError, ModelFileError, suggest

Tensors = dict[str, Tensor]


class Transform(ABC):
    """A step from variables to variables, all of shape (n, ...) with one leading axis."""

    kind: ClassVar[str]

    def fitted(self, batch: Tensors) -> "Transform":
        """The same step after it has seen the shapes of raw training data; most steps have nothing to learn."""
        del batch
        return self

    @abstractmethod
    def forward(self, batch: Tensors) -> Tensors:
        """Raw to adapted; variables that are missing from the batch are passed over, so that conditions alone can be adapted."""

    @abstractmethod
    def inverse(self, batch: Tensors) -> Tensors:
        """Adapted to raw."""

    def log_abs_det(self, batch: Tensors) -> Tensors:
        """log |det d forward(z) / d z| in nats for each variable of `forward(batch)` that changes volume; shape (n,)."""
        del batch
        return {}

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything that rebuilds this step, as JSON."""


class Concatenate(Transform):
    """Joins variables along their last axis under a new name."""

    kind = "concatenate"

    def __init__(self, names: list[str], into: str, widths: list[int] | None = None) -> None:
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"Expected one or more different variables to join into {into!r}, got {names!r}.")
        self.names, self.into, self.widths = list(names), into, widths

    def fitted(self, batch: Tensors) -> "Concatenate":
        missing = [name for name in self.names if name not in batch]
        if missing:
            raise DataError(f"Variable {missing[0]!r} ({self.into}) is not in the data. {suggest(missing[0], batch)}")
        leading = {name: tuple(batch[name].shape[1:-1]) for name in self.names}
        if len(set(leading.values())) > 1:
            listed = ", ".join(f"{name} {tuple(batch[name].shape)}" for name in self.names)
            raise DataError(
                f"Expected the variables of {self.into!r} to differ in their last axis only, got {listed}. "
                "Reshape or repeat them in the simulator."
            )
        return Concatenate(self.names, self.into, [batch[name].shape[-1] for name in self.names])

    def forward(self, batch: Tensors) -> Tensors:
        if not all(name in batch for name in self.names):
            return batch
        rest = {key: value for key, value in batch.items() if key not in self.names}
        return rest | {self.into: torch.cat([batch[name] for name in self.names], dim=-1)}

    def inverse(self, batch: Tensors) -> Tensors:
        if self.into not in batch:
            return batch
        assert self.widths is not None, "inverse before fitted"
        rest = {key: value for key, value in batch.items() if key != self.into}
        return rest | dict(zip(self.names, torch.split(batch[self.into], self.widths, dim=-1), strict=True))

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "into": self.into, "widths": self.widths}


KINDS: dict[str, type[Transform]] = {Concatenate.kind: Concatenate}


def transform_from_json(entry: dict[str, Any]) -> Transform:
    """A transform from its saved `{"kind": ..., "config": {...}}`; only kinds of this project are built."""
    kind = entry.get("kind", "")
    if kind not in KINDS:
        raise ModelFileError(f"The file names an unknown adapter transform {kind!r}. {suggest(str(kind), KINDS)}")
    return KINDS[kind](**entry["config"])
