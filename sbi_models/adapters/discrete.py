"""Places of discrete components in an adapted variable, and discrete steps from torch distributions."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.distributions import Distribution, Independent, MixtureSameFamily, constraints

from sbi_models.adapters.transforms import AsCategorical, AsCount, Discrete, Names, Tensors, Transform
from sbi_models.errors import ConfigurationError

MOST_LISTED = 64
"""Largest number of values of a bounded prior that are categories; of more they are counts."""


class DiscreteColumn(NamedTuple):
    """A discrete column of an adapted variable (n, d): its place, and its law, see `Law`."""

    column: int
    kind: str
    size: int


class _Mark(NamedTuple):
    step: int
    name: str
    place: int
    component: int


def discrete_columns(
    transforms: Iterable[Transform], batch: Tensors, role: str
) -> tuple[DiscreteColumn, ...]:
    """Discrete columns of an adapted variable (n, d), in order, by fitted steps and raw variables (n, ...).

    Raises:
        ConfigurationError: if a later step changes the values of a discrete component.
    """
    return tuple(sorted(column for column, *_ in _places(transforms, batch, role)))


def discrete_places(transforms: Iterable[Transform], batch: Tensors, role: str) -> list[tuple[int, str, int]]:
    """Of each of the `discrete_columns`: its place, and the variable and component that it is."""
    places = _places(transforms, batch, role)
    return sorted((column.column, name, component) for column, name, component in places)


def _places(
    transforms: Iterable[Transform], batch: Tensors, role: str
) -> list[tuple[DiscreteColumn, str, int]]:
    """The discrete columns, and the variable and component that each of them is.

    Raises:
        ConfigurationError: if a later step changes the values of a discrete component.
    """
    steps = list(transforms)
    if not any(isinstance(step, Discrete) for step in steps):
        return []
    raw = {name: value[:1].to(torch.float64) for name, value in batch.items()}
    marks, rows = [], raw
    for number, step in enumerate(steps):
        if isinstance(step, Discrete):
            marks += [
                _Mark(number, name, place, component)
                for name in step.names
                if name in rows
                for place, component in enumerate(step.chosen(name, rows[name]))
            ]
        rows = step.forward(rows)
    raw = {name: value.repeat_interleave(len(marks), dim=0) for name, value in raw.items()}
    plain, _ = _carried(steps, raw, [], role)
    marked, values = _carried(steps, raw, marks, role)
    adapted = raw
    for step in steps:
        adapted = step.forward(adapted)
    found = []
    for row, mark in enumerate(marks):
        step = steps[mark.step]
        assert isinstance(step, Discrete)
        at = (marked[row].isposinf() & ~plain[row].isposinf()).nonzero()
        if not len(at):
            continue
        column = int(at[0, -1])
        if len(at) > 1 or not bool(adapted[role][row].reshape(-1)[column] == values[row]):
            raise ConfigurationError(
                f"Expected no step that changes the values of {mark.name!r} after {step.kind}, which "
                "declares them discrete, got one. Leave that step out, or put it before."
            )
        law = DiscreteColumn(column, *step.law(mark.name, mark.place))
        found.append((law, mark.name, mark.component))
    return found


def _carried(
    steps: list[Transform], raw: Tensors, marks: list[_Mark], role: str
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Log slopes of the role, infinite where a mark has gone, and the values of the marked components."""
    batch, slopes = raw, {name: torch.zeros_like(value) for name, value in raw.items()}
    values: list[torch.Tensor] = []
    for number, step in enumerate(steps):
        after = step.forward(batch)
        slopes, batch = step.carried(batch, slopes), after
        for row, mark in enumerate(marks):
            if mark.step == number:
                slopes[mark.name] = slopes[mark.name].clone()
                slopes[mark.name][row, ..., mark.component] = torch.inf
                values.append(batch[mark.name][row, ..., mark.component].reshape(-1)[0])
    return slopes[role], values


def discrete_steps(names: Names, distribution: Distribution) -> list[Transform] | None:
    """The step of a distribution of discrete support; None for a support that no step is for.

    >>> [step.config()["values"] for step in discrete_steps("k", torch.distributions.Bernoulli(0.5))]
    [[0.0, 1.0]]
    """
    while isinstance(distribution, Independent | MixtureSameFamily):
        distribution = (
            distribution.base_dist
            if isinstance(distribution, Independent)
            else distribution.component_distribution
        )
    support: Any = distribution.support
    if isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, type(constraints.boolean)):
        return [AsCategorical(names, [0.0, 1.0])]
    if isinstance(support, constraints.integer_interval):
        lower, upper = (
            int(torch.as_tensor(bound).min() if low else torch.as_tensor(bound).max())
            for bound, low in ((support.lower_bound, True), (support.upper_bound, False))
        )
        if upper - lower < MOST_LISTED:
            return [AsCategorical(names, [float(k) for k in range(lower, upper + 1)])]
        return [AsCount(names, upper)] if lower >= 0 else None
    if isinstance(support, type(constraints.nonnegative_integer)):
        return [AsCount(names)] if bool((torch.as_tensor(support.lower_bound) >= 0).all()) else None
    return None
