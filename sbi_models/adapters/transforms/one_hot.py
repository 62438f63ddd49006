"""Classes as indicator vectors."""

from typing import Any

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Names, PerVariable
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.adapters.transforms.support import Requirement
from sbi_models.errors import ConfigurationError, DataError


@register_transform("one_hot")
class OneHot(PerVariable):
    """Maps classes 0 ... C - 1 to indicators: (n, ..., d) becomes (n, ..., d C), C for each component.

    Exactly one of the C numbers is 1. The inverse takes the position of the greatest, the first of them if
    several are. No bijection: it has no density; discrete parameters cannot be inferred as
    inference_variables.
    """

    has_density = False

    def __init__(self, names: Names, num_classes: int) -> None:
        super().__init__(names)
        if type(num_classes) is not int or num_classes < 2:
            raise ConfigurationError(
                f"Expected num_classes as an integer of at least 2, got {num_classes!r}."
            )
        self.num_classes = num_classes

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        del name
        inside = (value >= 0) & (value < self.num_classes) & (value == value.round())
        cure = "Number the classes from 0, or give a larger num_classes."
        return [Requirement(inside, f"a class 0 ... {self.num_classes - 1} (adapter.one_hot)", cure, value)]

    def _map(self, name: str, value: Tensor) -> Tensor:
        self._check(name, value)
        dtype = value.dtype if value.is_floating_point() else torch.float64
        return torch.nn.functional.one_hot(value.long(), self.num_classes).to(dtype).flatten(start_dim=-2)

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        if value.shape[-1] % self.num_classes:
            raise DataError(
                f"Expected {name!r} with a multiple of {self.num_classes} components, got shape "
                f"{tuple(value.shape)}."
            )
        return value.reshape(*value.shape[:-1], -1, self.num_classes).argmax(dim=-1).to(value.dtype)

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "num_classes": self.num_classes}
