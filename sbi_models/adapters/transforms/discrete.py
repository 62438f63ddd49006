"""Discrete variables: categories, and counts.

These steps say which components have probabilities in place of a density. A step maps a category to its
number 0 ... C - 1, and leaves a count as it is. Densities of the other components are unchanged: the log
slope of a discrete component is 0, and its log probability, in nats, is with respect to counting measure.
"""

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Names, PerVariable, Tensors, floating, require
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.adapters.transforms.support import Requirement
from sbi_models.errors import ConfigurationError, DataError, NotFittedError

MOST_CLASSES = 1000

LARGEST_COUNT = 2**24
"""Largest count: networks work in float32, which holds every whole number up to here."""


class Law(NamedTuple):
    """Kind of a discrete component: "categorical" with `size` classes, or "count" from 0 up to `size`."""

    kind: str
    size: int


class Discrete(PerVariable):
    """Base class of the steps that declare components of the last axis discrete.

    Args:
        names: variables.
        components: which components of the last axis; None is all of them.
    """

    def __init__(self, names: Names, components: list[int] | None = None) -> None:
        super().__init__(names)
        listed = None if components is None else list(components)
        if listed is not None and (
            not listed or len(set(listed)) < len(listed) or not all(type(k) is int and k >= 0 for k in listed)
        ):
            raise ConfigurationError(
                f"Expected components of {', '.join(self.names)} as different whole numbers from 0, got "
                f"{components!r}."
            )
        self.components = listed

    def fitted(self, batch: Tensors) -> "Discrete":
        require(self.names, batch, self.kind)
        for name in self.names:
            self.chosen(name, batch[name])
        return self

    def chosen(self, name: str, value: Tensor) -> list[int]:
        """The discrete components of a variable (n, ..., d)."""
        width = value.shape[-1]
        if self.components is None:
            return list(range(width))
        if max(self.components) >= width:
            raise DataError(
                f"Expected components of {name!r} below its width {width}, got {max(self.components)} in "
                f"{self.kind}. Components count from 0."
            )
        return self.components

    def law(self, name: str, place: int) -> Law:
        """The law of the component at a place among the chosen ones."""
        raise NotImplementedError

    def _carry(self, name: str, value: Tensor, slopes: Tensor) -> Tensor:
        del name, value
        return slopes

    def _replaced(self, value: Tensor, columns: Mapping[int, Tensor]) -> Tensor:
        """A variable (n, ..., d) with some components replaced."""
        return torch.stack([columns.get(k, value[..., k]) for k in range(value.shape[-1])], dim=-1)


Values = list[float] | dict[str, list[list[float]]]
"""Values of the categories: a list for all components, or a list for each chosen component by variable."""


@register_transform("as_categorical")
class AsCategorical(Discrete):
    """Maps the distinct values of a variable to 0 ... C - 1, in their order, and back.

    Args:
        names, components: as for `Discrete`.
        values: values of the categories, for all components alike; None learns those of the training data,
            for each component by itself.
    """

    def __init__(
        self, names: Names, values: Values | None = None, components: list[int] | None = None
    ) -> None:
        super().__init__(names, components)
        if isinstance(values, Mapping):
            self.values: Values | None = {
                name: [_checked(one) for one in listed] for name, listed in values.items()
            }
        else:
            self.values = None if values is None else _checked(values)

    def fitted(self, batch: Tensors) -> "AsCategorical":
        super().fitted(batch)
        learned = {}
        for name in self.names:
            columns = self.chosen(name, batch[name])
            if self.values is None:
                learned[name] = [_distinct(name, batch[name][..., k]) for k in columns]
            elif isinstance(self.values, dict):
                learned[name] = self.values[name]
            else:
                learned[name] = [self.values] * len(columns)
        return AsCategorical(self.names, learned, self.components)

    def table(self, name: str) -> list[list[float]]:
        """Values of the categories of each chosen component."""
        if not isinstance(self.values, dict):
            raise NotFittedError(
                f"The adapter has not seen data: the categories of {name!r} are unknown. Call fitted(batch)."
            )
        return self.values[name]

    def law(self, name: str, place: int) -> Law:
        return Law("categorical", len(self.table(name)[place]))

    def _tables(self, name: str, value: Tensor) -> dict[int, Tensor]:
        """Values of the categories by component."""
        listed = self.table(name)
        return {
            k: torch.tensor(listed[place], dtype=torch.float64, device=value.device)
            for place, k in enumerate(self.chosen(name, value))
        }

    def _numbers(self, name: str, value: Tensor) -> dict[int, Tensor]:
        return {
            k: torch.searchsorted(table, value[..., k].to(torch.float64).contiguous()).clamp(
                max=len(table) - 1
            )
            for k, table in self._tables(name, value).items()
        }

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        numbers = self._numbers(name, value)
        cure = (
            "Values that were never simulated have probability 0. If they are possible, list all values: "
            f"adapter.as_categorical({name!r}, values=[...])."
        )
        return [
            Requirement(
                table[numbers[k]] == value[..., k],
                f"one of the {len(table)} categories {_short(table)} (adapter.as_categorical)",
                cure,
                value[..., k],
            )
            for k, table in self._tables(name, value).items()
        ]

    def _map(self, name: str, value: Tensor) -> Tensor:
        value = floating(value)
        self._check(name, value)
        return self._replaced(
            value, {k: number.to(value.dtype) for k, number in self._numbers(name, value).items()}
        )

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        value = floating(value)
        return self._replaced(
            value,
            {
                k: table[value[..., k].nan_to_num().round().clamp(0, len(table) - 1).long()].to(value.dtype)
                for k, table in self._tables(name, value).items()
            },
        )

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "values": self.values, "components": self.components}


@register_transform("as_count")
class AsCount(Discrete):
    """Declares whole numbers from 0; the values stay as they are.

    Args:
        names, components: as for `Discrete`.
        upper: largest possible count, such as the number of trials; None is no bound, up to 2^24, the largest
            whole number up to which float32 holds all.
    """

    def __init__(self, names: Names, upper: int | None = None, components: list[int] | None = None) -> None:
        super().__init__(names, components)
        try:
            self.upper = None if upper is None else index(upper)
        except TypeError:
            self.upper = -1
        if self.upper is not None and not 1 <= self.upper <= LARGEST_COUNT:
            raise ConfigurationError(
                f"Expected upper as a whole number from 1 to {LARGEST_COUNT}, or None, got {upper!r}."
            )

    @property
    def largest(self) -> int:
        """Largest count."""
        return LARGEST_COUNT if self.upper is None else self.upper

    def law(self, name: str, place: int) -> Law:
        del name, place
        return Law("count", self.largest)

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        fits = [
            Requirement(
                (value[..., k] >= 0)
                & (value[..., k] == value[..., k].round())
                & (value[..., k] <= self.largest),
                f"a whole number from 0 to {self.largest} (adapter.as_count)",
                "Drop those rows; categories with other values are adapter.as_categorical.",
                value[..., k],
            )
            for k in self.chosen(name, value)
        ]
        return fits

    def _map(self, name: str, value: Tensor) -> Tensor:
        value = floating(value)
        self._check(name, value)
        return value

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        value = floating(value)
        columns = {k: value[..., k].round().clamp(0, self.largest) for k in self.chosen(name, value)}
        return self._replaced(value, columns)

    def config(self) -> dict[str, Any]:
        return {"names": self.names, "upper": self.upper, "components": self.components}


def _checked(values: Any) -> list[float]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    listed = list(listed) if isinstance(listed, Sequence | range) and not isinstance(listed, str) else []
    if (
        not 1 <= len(listed) <= MOST_CLASSES
        or not all(isinstance(one, int | float) and abs(one) < float("inf") for one in listed)
        or len(set(listed)) < len(listed)
    ):
        raise ConfigurationError(
            f"Expected values of categories as 1 to {MOST_CLASSES} different finite numbers, got {values!r}."
        )
    return sorted(float(one) for one in listed)


def _distinct(name: str, column: Tensor) -> list[float]:
    values: Tensor = torch.unique(column.to(torch.float64))
    if not bool(values.isfinite().all()) or len(values) > MOST_CLASSES:
        raise DataError(
            f"Expected at most {MOST_CLASSES} categories of {name!r}, all finite, got {len(values)} "
            f"different values. Whole numbers of many values are counts: adapter.as_count({name!r})."
        )
    return [float(value) for value in values]


def _short(table: Tensor) -> str:
    shown = [f"{float(value):g}" for value in table[:5]]
    return ", ".join(shown) + (", ..." if len(table) > len(shown) else "")
