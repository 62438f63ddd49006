"""Map open intervals and half-lines onto the real line, component by component."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Elementwise, Names, Tensors, floating, require
from sbi_models.adapters.transforms.numbers import check_width, checked_units, unit_of
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.adapters.transforms.softplus import inverse_softplus, log_slope_of_inverse, softplus
from sbi_models.adapters.transforms.support import Requirement, clamp, just_above, just_below, largest
from sbi_models.errors import ConfigurationError, suggest

Bound = float | None
Bounds = Bound | list[Bound]
Scale = Literal["probit", "logit"]

_SCALES = get_args(Scale)


@register_transform("constrain")
class Constrain(Elementwise):
    """Maps the open support of a variable (n, ..., d) to the real line; draws lie strictly inside it.

    lower and upper a, b, scale "probit":
        z = Phi^(-1)((x - a) / (b - a)),          log dz/dx = z^2 / 2 + log(2 pi) / 2 - log(b - a)
    lower and upper a, b, scale "logit":
        z = log((x - a) / (b - x)),               log dz/dx = log(b - a) - log(x - a) - log(b - x)
    lower a only, the inverse of softplus:
        z = y + log(1 - exp(-y)), y = (x - a) / u,    log dz/dx = -log(1 - exp(-y)) - log u
    upper b only, the mirror image:
        z = -inverse_softplus((b - x) / u)
    neither:
        z = x

    The unit u is 1 until the step is fitted to data: then it is the power of 2 that is nearest to the median
    distance from the bound, so that the unit of the user makes no difference. Softplus is the identity far
    from the bound, and a logarithm near it. All of them increase. Bounds are numbers, or lists with one for
    each component of the last axis; None is no bound.

    Sources: the transforms of constrained variables of the Stan reference manual, with softplus in place of
    exp, which has gentler tails; and the quantile function of the normal distribution, Phi^(-1), which makes
    a uniform variable standard normal.
    """

    def __init__(
        self,
        names: Names,
        lower: Any = None,
        upper: Any = None,
        scale: Scale = "logit",
        units: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__(names)
        if scale not in _SCALES:
            raise ConfigurationError(
                f"Unknown scale {scale!r} of an interval. {suggest(str(scale), _SCALES)}"
            )
        self.scale: Scale = scale
        self.lower, self.upper = _as_bounds(lower, "lower"), _as_bounds(upper, "upper")
        self.units = checked_units(units, self.kind)
        lengths = {len(bounds) for bounds in (self.lower, self.upper) if isinstance(bounds, list)}
        if len(lengths) > 1:
            raise ConfigurationError(
                f"Expected as many lower as upper bounds for {', '.join(self.names)}, got "
                f"{lower!r} and {upper!r}."
            )
        pairs = list(
            zip(
                *(_listed(bounds, max(lengths, default=1)) for bounds in (self.lower, self.upper)),
                strict=True,
            )
        )
        if all(pair == (None, None) for pair in pairs):
            raise ConfigurationError(
                f"Expected a lower or an upper bound for {', '.join(self.names)}, got none. Give "
                "lower= or upper=."
            )
        for low, high in pairs:
            if (
                low is not None
                and high is not None
                and not (math.nextafter(low, math.inf) < high and math.isfinite(high - low))
            ):
                raise ConfigurationError(
                    f"Expected lower < upper for {', '.join(self.names)}, got lower={low!r} and "
                    f"upper={high!r}."
                )

    def fitted(self, batch: Tensors) -> "Constrain":
        require(self.names, batch, self.kind)
        for name in self.names:
            self._groups(name, batch[name])
            self._check(name, batch[name])
        one_sided = [(low is None) != (high is None) for low, high in self._pairs(1)]
        if self.units is not None or not any(one_sided):
            return self
        return Constrain(
            self.names,
            self.lower,
            self.upper,
            self.scale,
            {name: self._units(floating(batch[name])) for name in self.names},
        )

    def _pairs(self, width: int) -> list[tuple[Bound, Bound]]:
        """Bounds of each component of an axis, or of the lists of bounds, if these are longer."""
        width = max(
            [width, *(len(bounds) for bounds in (self.lower, self.upper) if isinstance(bounds, list))]
        )
        return list(zip(_listed(self.lower, width), _listed(self.upper, width), strict=True))

    def _units(self, value: Tensor) -> list[float]:
        """Unit of each component of a variable, raw."""
        columns = zip(value.reshape(-1, value.shape[-1]).T, self._pairs(value.shape[-1]), strict=True)
        return [
            1.0
            if (low is None) == (high is None)
            else unit_of(column - low if low is not None else high - column)
            for column, (low, high) in columns
        ]

    def _map(self, name: str, value: Tensor) -> Tensor:
        self._check(name, value)
        parts = [
            _forward(value[..., columns], low, high, unit, self.scale)
            for columns, low, high, unit in self._groups(name, value)
        ]
        return self._assembled(value, parts)

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        parts = [
            _inverse(value[..., columns], low, high, unit, self.scale)
            for columns, low, high, unit in self._groups(name, value)
        ]
        return self._assembled(value, parts)

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        parts = [
            _log_slope(value[..., columns], low, high, unit, self.scale)
            for columns, low, high, unit in self._groups(name, value)
        ]
        return self._assembled(value, parts)

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        cure = (
            "Correct the bound in adapter.constrain (it is open: values on it are outside), or drop "
            "those rows."
        )
        requirements = []
        for columns, low, high, _ in self._groups(name, value):
            part = value[..., columns]
            if low is not None:
                requirements.append(
                    Requirement(part > low, f"greater than its lower bound {_shown(low)}", cure, part)
                )
            if high is not None:
                requirements.append(
                    Requirement(part < high, f"less than its upper bound {_shown(high)}", cure, part)
                )
        return requirements

    def _groups(self, name: str, value: Tensor) -> list[tuple[Any, Tensor | None, Tensor | None, Tensor]]:
        """Columns of the last axis with the same kind of support, with their bounds and units as tensors."""
        check_width(self.lower, name, value, "lower")
        check_width(self.upper, name, value, "upper")
        groups, units = [], (self.units or {}).get(name) or [1.0] * value.shape[-1]
        for columns in self._columns(value.shape[-1]):
            bounds: list[Tensor | None] = []
            for listed in (_listed(self.lower, value.shape[-1]), _listed(self.upper, value.shape[-1])):
                chosen = [listed[column] for column in columns]
                bounds.append(None if chosen[0] is None else value.new_tensor(chosen))
            unit = value.new_tensor([units[column] for column in columns])
            groups.append(
                (slice(None) if len(columns) == value.shape[-1] else columns, bounds[0], bounds[1], unit)
            )
        return groups

    def _columns(self, width: int) -> list[list[int]]:
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for column, (low, high) in enumerate(self._pairs(width)):
            kinds.setdefault((low is None, high is None), []).append(column)
        return list(kinds.values())

    def _assembled(self, value: Tensor, parts: list[Tensor]) -> Tensor:
        """The columns of all groups in their own order again."""
        if len(parts) == 1:
            return parts[0]
        order = [column for columns in self._columns(value.shape[-1]) for column in columns]
        back = sorted(range(len(order)), key=order.__getitem__)
        return torch.cat(parts, dim=-1)[..., back]

    def config(self) -> dict[str, Any]:
        units = {} if self.units is None else {"units": self.units}
        return {"names": self.names, "lower": self.lower, "upper": self.upper, "scale": self.scale, **units}


def _forward(x: Tensor, low: Tensor | None, high: Tensor | None, unit: Tensor, scale: Scale) -> Tensor:
    """Raw x to the real line; bounds and units broadcast against the last axis."""
    if low is not None and high is not None:
        if scale == "logit":
            return torch.log(x - low) - torch.log(high - x)
        below = x - low < high - x  # each half is measured from its own bound
        quantile = torch.special.ndtri(torch.where(below, x - low, high - x) / (high - low))
        return torch.where(below, quantile, -quantile)
    if low is not None:
        return inverse_softplus(_distance(x, low, unit))
    return x if high is None else -inverse_softplus(_distance(high, x, unit))


def _inverse(z: Tensor, low: Tensor | None, high: Tensor | None, unit: Tensor, scale: Scale) -> Tensor:
    """Raw values strictly inside the bounds; each half of an interval is measured from its own bound."""
    if low is not None and high is not None:
        down = torch.where(z < 0, z, -z)
        step = (high - low) * (
            torch.sigmoid(down) if scale == "logit" else torch.erfc(-down / math.sqrt(2)) / 2
        )
        return clamp(torch.where(z < 0, low + step, high - step), just_above(low), just_below(high))
    if low is not None:
        return clamp(low + softplus(z) * unit, just_above(low), largest(z))
    return z if high is None else clamp(high - softplus(-z) * unit, -largest(z), just_below(high))


def _log_slope(x: Tensor, low: Tensor | None, high: Tensor | None, unit: Tensor, scale: Scale) -> Tensor:
    """log dz/dx in nats at raw x."""
    if low is not None and high is not None:
        if scale == "probit":
            return _forward(x, low, high, unit, scale).square() / 2 + (
                math.log(2 * math.pi) / 2 - torch.log(high - low)
            )
        return torch.log(high - low) - torch.log(x - low) - torch.log(high - x)
    if low is not None:
        return log_slope_of_inverse(_distance(x, low, unit)) - unit.log()
    return (
        torch.zeros_like(x) if high is None else log_slope_of_inverse(_distance(high, x, unit)) - unit.log()
    )


def _distance(upper: Tensor, lower: Tensor, unit: Tensor) -> Tensor:
    """upper - lower > 0 in units, finite and positive even where the difference or the quotient is not."""
    return clamp(
        torch.minimum(upper - lower, largest(upper)) / unit,
        just_above(torch.zeros_like(upper)),
        largest(upper),
    )


def _shown(bound: Tensor) -> str:
    numbers = bound.tolist()
    return str(numbers[0] if len(set(numbers)) == 1 else numbers)


def _listed(bounds: Bounds, width: int) -> list[Bound]:
    return bounds if isinstance(bounds, list) else [bounds] * width


def _as_bounds(value: Any, what: str) -> Bounds:
    """A bound or a list of bounds as JSON holds them; infinite ones are none."""
    value = value.tolist() if hasattr(value, "tolist") else value
    listed = list(value) if isinstance(value, list | tuple) else [value]
    bounds: list[Bound] = []
    for item in listed:
        if item is None or item == (-math.inf if what == "lower" else math.inf):
            bounds.append(None)
        elif isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
            bounds.append(float(item))
        else:
            raise ConfigurationError(
                f"Expected {what} as a number, None, or a list of them, one for each component, "
                f"got {value!r}."
            )
    if not bounds:
        raise ConfigurationError(
            f"Expected {what} as a number, None, or a list of them, one for each component, got none."
        )
    return bounds if isinstance(value, list | tuple) else bounds[0]
