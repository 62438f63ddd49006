"""Rename, keep and drop variables."""

from typing import Any

from sbi_models.adapters.transforms.base import Names, Tensors, Transform, checked_names, require, require_new
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError


@register_transform("rename")
class Rename(Transform):
    """Gives a variable another name; shape and values stay."""

    def __init__(self, name: str, to: str) -> None:
        if checked_names(name, self.kind) == checked_names(to, self.kind):
            raise ConfigurationError(f"Expected a new name for {name!r}, got the same one.")
        self.name, self.to = name, to

    def fitted(self, batch: Tensors) -> "Rename":
        require([self.name], batch, self.kind)
        return self

    def forward(self, batch: Tensors) -> Tensors:
        if self.name in batch:
            require_new(self.to, batch, self.kind)
        return {self.to if name == self.name else name: value for name, value in batch.items()}

    def inverse(self, batch: Tensors) -> Tensors:
        return {self.name if name == self.to else name: value for name, value in batch.items()}

    def makes(self) -> list[str]:
        return [self.to]

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "to": self.to}


@register_transform("keep")
class Keep(Transform):
    """Leaves out every variable that is not named.

    The inverse cannot bring them back and leaves the batch as it is.
    """

    def __init__(self, names: Names) -> None:
        self.names = checked_names(names, self.kind)

    def fitted(self, batch: Tensors) -> "Keep":
        require(self.names, batch, self.kind)
        return self

    def forward(self, batch: Tensors) -> Tensors:
        return {name: value for name, value in batch.items() if name in self.names}

    def inverse(self, batch: Tensors) -> Tensors:
        return batch

    def config(self) -> dict[str, Any]:
        return {"names": self.names}


@register_transform("drop")
class Drop(Keep):
    """Leaves out the named variables; the inverse cannot bring them back and leaves the batch as it is."""

    def forward(self, batch: Tensors) -> Tensors:
        return {name: value for name, value in batch.items() if name not in self.names}
