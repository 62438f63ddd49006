"""A part of the elements of sets, series and images along their first axis."""

from operator import index
from typing import Any

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.adapters.transforms.base import Names, PerVariable, Tensors, require
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.errors import ConfigurationError, DataError, NotFittedError


@register_transform("subsample")
class Subsample(PerVariable):
    """Subsample of (n, m, ...): k of the m elements, at positions drawn once, in their order.

    The positions depend on the seed and on m alone. They are the same for every row, in training and in
    inference, and are saved: an adapter is a function, and a network that was trained on elements chosen anew
    for each row would need them chosen again for each draw. Random subsets belong into augmentations.
    Variables of equal m, such as a set and its mask, lose the same elements.

    The way back leaves the variable out, for the other elements are unknown. No bijection: it has no density.

    Args:
        names: variables.
        size: k, an integer, or a fraction of m above 0 and up to 1, rounded, at least one element.
        seed: seed of the positions.
        positions: those that were drawn, by name of the variable.
        lengths: m, by name of the variable.
    """

    has_density = False

    def __init__(
        self,
        names: Names,
        size: int | float,
        seed: int = 0,
        positions: dict[str, list[int]] | None = None,
        lengths: dict[str, int] | None = None,
    ) -> None:
        super().__init__(names)
        self.size, self.seed, self.positions, self.lengths = (
            _checked_size(size),
            seeding.check_seed(seed),
            positions,
            lengths,
        )

    def fitted(self, batch: Tensors) -> "Subsample":
        require(self.names, batch, self.kind)
        if self.positions is not None:
            return self
        lengths = {name: _length(name, batch[name]) for name in self.names}
        return Subsample(
            self.names,
            self.size,
            self.seed,
            {name: self._drawn(name, m) for name, m in lengths.items()},
            lengths,
        )

    def _drawn(self, name: str, length: int) -> list[int]:
        number = max(1, round(self.size * length)) if isinstance(self.size, float) else self.size
        if number > length:
            raise DataError(
                f"Expected {name!r} with at least the {number} elements to keep along axis 1, got "
                f"{length}. Give a smaller size."
            )
        order = seeding.generator(self.seed, "subsample", length).permutation(length)
        return sorted(int(position) for position in order[:number])

    def inverse(self, batch: Tensors) -> Tensors:
        return {name: value for name, value in batch.items() if name not in self.names}

    def _map(self, name: str, value: Tensor) -> Tensor:
        if self.positions is None or self.lengths is None:
            raise NotFittedError(
                f"The adapter has not seen data: the number of elements of {name!r} is unknown. "
                "Call fitted(batch)."
            )
        if _length(name, value) != self.lengths[name]:
            raise DataError(
                f"Expected {name!r} with {self.lengths[name]} elements along axis 1, as in "
                f"training, got {tuple(value.shape)}."
            )
        return value.index_select(1, torch.as_tensor(self.positions[name], device=value.device))

    def _unmap(
        self, name: str, value: Tensor
    ) -> Tensor:  # pragma: no cover - inverse leaves the variable out
        del name
        return value

    def config(self) -> dict[str, Any]:
        return {
            "names": self.names,
            "size": self.size,
            "seed": self.seed,
            "positions": self.positions,
            "lengths": self.lengths,
        }


def _checked_size(size: Any) -> int | float:
    if isinstance(size, float) and 0 < size <= 1:
        return size
    try:
        number = index(size)
    except TypeError:
        number = 0
    if number < 1 or isinstance(size, bool):
        raise ConfigurationError(
            "Expected size as a number of elements (an int) or a fraction of them (a float up to "
            f"1), got {size!r}."
        )
    return number


def _length(name: str, value: Tensor) -> int:
    if value.ndim < 2:
        raise DataError(
            f"Expected {name!r} with an axis of elements after that of the rows, got shape "
            f"{tuple(value.shape)}."
        )
    return value.shape[1]
