"""Warnings of data that networks can hardly learn from: heavy tails, odd scales, whole numbers."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sbi_models.errors import distrust
from sbi_models.types import Array, Variables

_FEWEST_ROWS, _MOST_VALUES = 20, 1_000_000
"""Least number of rows to warn about, and largest number of values of a column to examine."""

_CRUSHED = 0.1
"""Largest robust sd, in sds, of values that standardization crushes.

It is 1 for normal values, 0.8 for Student's t with 5 degrees of freedom, 0.5 for log-normal ones with sigma =
1, and less than 0.1 from sigma = 2.
"""

_FAR_OUT, _OF_ROOT = 8.0, 0.25
"""Least distance of the largest value, in sds, or in shares of the root of the number of values.

That root is the largest possible distance; two narrow modes are no tails.
"""

_AXES_OF_IMAGES = 4
"""Number of axes of images, whose dark pixels a few bright ones do not crush."""

_FAR, _SMALL = 100.0, 0.03
"""Mean or sd of adapted conditions that is too large, and deviation from the mean that is too small."""

_FINE = 1e-3
"""Spacing of whole numbers, in sds, below which they are as good as continuous."""


class _Column(NamedTuple):
    name: str
    values: Tensor


def warn_of_unsuitable(
    adapted: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    names: Mapping[str, Sequence[str]],
    widths: Mapping[str, int],
    standardized: Sequence[str],
) -> None:
    """Warn of each variable whose tails standardization crushes, or far from a unit scale without it.

    Args:
        adapted: role or key to values (n, ..., d), adapted space.
        masks: key to (n, length), True where an element counts.
        names: raw names of the variables of each role or key.
        widths: raw name to its number of components along the last axis.
        standardized: roles and keys that are.
    """
    for key, value in adapted.items():
        if len(value) < _FEWEST_ROWS:
            continue
        columns = list(_columns(value, masks.get(key), names.get(key, (key,)), widths))
        if key in standardized and value.ndim < _AXES_OF_IMAGES:
            _warn(_named(column.name for column in columns if _is_crushed(column.values)), _TAILS)
        elif key not in standardized and key != "inference_variables":
            _warn(_named(column.name for column in columns if _is_off(column.values)), _SCALE)


_TAILS = (
    "{names}: standardization crushes it. Half of its values lie within {share:g} sds, since a few are far "
    "out, and the network can hardly tell them apart. Put adapter.log(name) before, for positive values, "
    "or take a logarithm or np.arcsinh(x / typical size) in the simulator."
)
_SCALE = (
    "{names}: it is not standardized, and far from a unit scale (mean or sd above {far:g}, or all values "
    "within {small:g} of each other), so that the network can hardly learn from it, and a verdict would call "
    'the data uninformative. Pass standardize="all", or adapter.standardize(name).'
)
_WHOLE = (
    "{names}: it has whole numbers only, and is inferred with a continuous density, which has no right "
    "value for them: spikes grow as long as training goes on. Declare them, adapter.as_categorical(name) "
    "for few values or adapter.as_count(name), and train an AutoregressiveMixture; or make them continuous "
    "in the simulator, k + rng.uniform(), and take the floor of draws. Whole numbers that are conditions are "
    "fine."
)


def warn_of_whole_numbers(
    variables: Variables, names: Sequence[str], declared: Collection[tuple[str, int]] = ()
) -> None:
    """Warn of inferred raw variables (n, ..., d) with a component of whole numbers, which have no density.

    Components that are declared discrete, (name, component), are let be.
    """
    whole = []
    for name in names:
        rows = np.asarray(variables[name], dtype=float)
        if len(rows) >= _FEWEST_ROWS:
            columns = rows.reshape(-1, rows.shape[-1]).T
            whole += [
                f"{name}[{k}]" if len(columns) > 1 else name
                for k, column in enumerate(columns)
                if _is_whole(column) and (name, k) not in declared
            ]
    _warn(whole, _WHOLE)


def _warn(names: Sequence[str], text: str) -> None:
    if names:
        listed = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        distrust(text.format(names=listed, share=0.67 * _CRUSHED, far=_FAR, small=2 * _SMALL))


def _named(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _columns(
    value: Tensor, mask: Tensor | None, names: Sequence[str], widths: Mapping[str, int]
) -> Iterator[_Column]:
    """Components of the last axis, with the names of the variables that they are of, as far as known."""
    values = (
        value.reshape(-1, value.shape[-1])
        if mask is None or not bool(mask.any())
        else value[mask].reshape(-1, value.shape[-1])
    )
    values = values[:: max(1, len(values) // _MOST_VALUES)].to(torch.float64)
    owners = [name for name in names for _ in range(widths.get(name, 0))]
    owners = owners if len(owners) == values.shape[1] else [", ".join(names)] * values.shape[1]
    for name, column in zip(owners, values.T, strict=True):
        yield _Column(name, column[column.isfinite()])


def _is_crushed(values: Tensor) -> bool:
    away = (values - values.median()).abs() if len(values) else values
    largest = away.max() if len(values) else values.new_zeros(())
    if not bool(largest > 0):
        return False
    away = away / largest
    sd = away.square().mean().sqrt()
    typical = 1.4826 * away[away > 0].median()  # ties, such as the zeros of sparse counts, have no width
    return bool(typical < _CRUSHED * sd) and bool(sd * min(_FAR_OUT, _OF_ROOT * len(values) ** 0.5) < 1)


def _is_off(values: Tensor) -> bool:
    if not len(values):
        return False
    mean = values.mean()
    away = (values - mean).abs().max()
    constant = bool(away <= 1e-12 * values.abs().max())
    return (
        bool(mean.abs() > _FAR)
        or bool(values.std(correction=0) > _FAR)
        or (bool(away < _SMALL) and not constant)
    )


def _is_whole(column: Array) -> bool:
    largest = max(float(np.abs(column).max()), 1e-300)
    return bool((column == np.round(column)).all()) and 0 < (column / largest).std() < 1 / _FINE / largest
