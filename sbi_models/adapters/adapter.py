"""An adapter is an ordered, immutable list of transforms."""

from collections.abc import Iterable
from typing import Any

import torch

from sbi_models.adapters.transforms import Concatenate, Tensors, Transform, transform_from_json

ROLES = ("inference_variables", "inference_conditions", "summary_variables")
"""What a network does with a variable: infer it, take it directly, or summarise it first."""


class Adapter:
    """Takes raw variables to adapted ones and back; every method that changes it returns a new adapter."""

    def __init__(self, transforms: Iterable[Transform] = ()) -> None:
        self.transforms = tuple(transforms)

    def concatenate(self, names: str | list[str], *, into: str) -> "Adapter":
        """Join variables along the last axis."""
        return Adapter((*self.transforms, Concatenate([names] if isinstance(names, str) else list(names), into)))

    def fitted(self, batch: Tensors) -> "Adapter":
        """This adapter after it has learned the shapes of raw training data."""
        learned = []
        for transform in self.transforms:
            learned.append(transform.fitted(batch))
            batch = learned[-1].forward(batch)
        return Adapter(learned)

    def forward(self, batch: Tensors) -> Tensors:
        """Raw to adapted."""
        for transform in self.transforms:
            batch = transform.forward(batch)
        return batch

    def inverse(self, batch: Tensors) -> Tensors:
        """Adapted to raw."""
        for transform in reversed(self.transforms):
            batch = transform.inverse(batch)
        return batch

    def log_abs_det(self, batch: Tensors, role: str) -> torch.Tensor:
        """log |det d adapted / d raw| in nats of the variables of one role at raw values, shape (n,)."""
        total = torch.zeros(len(next(iter(batch.values()))), dtype=torch.float64, device=next(iter(batch.values())).device)
        for transform in self.transforms:
            total = total + transform.log_abs_det(batch).get(role, 0.0)
            batch = transform.forward(batch)
        return total

    def to_json(self) -> list[dict[str, Any]]:
        """The transforms as JSON."""
        return [{"kind": transform.kind, "config": transform.config()} for transform in self.transforms]

    @classmethod
    def from_json(cls, entries: list[dict[str, Any]]) -> "Adapter":
        """The adapter that `to_json` described."""
        return cls(transform_from_json(entry) for entry in entries)


def default_adapter(roles: dict[str, list[str]]) -> Adapter:
    """Concatenates the variables of each role along their last axis, under the name of the role.

    >>> default_adapter({"inference_variables": ["mu", "sigma"], "summary_variables": ["x"]}).to_json()[1]["config"]["into"]
    'summary_variables'
    """
    adapter = Adapter()
    for role in ROLES:
        if roles.get(role):
            adapter = adapter.concatenate(roles[role], into=role)
    return adapter
