"""Map increasing vectors to all real vectors."""

from typing import Any

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Elementwise, Names, Tensors, floating, require
from sbi_models.adapters.transforms.numbers import checked_units, unit_of
from sbi_models.adapters.transforms.registry import register_transform
from sbi_models.adapters.transforms.softplus import inverse_softplus, log_slope_of_inverse, softplus
from sbi_models.adapters.transforms.support import Requirement, clamp, just_above, just_below, largest


@register_transform("ordered")
class Ordered(Elementwise):
    """Takes x_1 < x_2 < ... < x_d along the last axis of (n, ..., d) to any real numbers, of the same shape.

    z_1 = x_1 and z_k = inverse_softplus(y_k) with the gap y_k = (x_k - x_(k-1)) / u_k. The Jacobian is
    triangular; its log diagonal is 0 for the first component and -log(1 - exp(-y_k)) - log u_k for the
    others. Source: ordered vectors of the Stan reference manual, with softplus in place of exp. Draws taken
    back increase strictly, also after rounding. Units u_k are 1 until the step is fitted to data: then they
    are the powers of 2 that are nearest to the median gaps.
    """

    def __init__(self, names: Names, units: dict[str, list[float]] | None = None) -> None:
        super().__init__(names)
        self.units = checked_units(units, self.kind)

    def fitted(self, batch: Tensors) -> "Ordered":
        require(self.names, batch, self.kind)
        for name in self.names:
            self._check(name, batch[name])
        gaps = {name: _gaps(floating(batch[name])) for name in self.names}
        units = {
            name: [unit_of(column) for column in gap.reshape(-1, gap.shape[-1]).T]
            for name, gap in gaps.items()
        }
        return self if self.units is not None else Ordered(self.names, units)

    def _unit(self, name: str, value: Tensor) -> Tensor:
        """Unit of each gap, (d - 1,)."""
        units = (self.units or {}).get(name)
        return value.new_ones(value.shape[-1] - 1) if units is None else value.new_tensor(units)

    def config(self) -> dict[str, Any]:
        return super().config() | ({} if self.units is None else {"units": self.units})

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        del name
        cure = "Sort the components in the simulator; for parameters without an order, do not constrain them."
        later, earlier = value[..., 1:], value[..., :-1]
        return [
            Requirement(
                later > earlier,
                "greater than the component before it (adapter.constrain, to='ordered')",
                cure,
                later,
            )
        ]

    def _map(self, name: str, value: Tensor) -> Tensor:
        self._check(name, value)
        return torch.cat([value[..., :1], inverse_softplus(_gaps(value, self._unit(name, value)))], dim=-1)

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        units = self._unit(name, value)
        ceilings = [largest(value)]
        for _ in range(value.shape[-1] - 1):
            ceilings.insert(0, just_below(ceilings[0]))
        components = [clamp(value[..., 0], -largest(value), ceilings[0])]
        for k in range(1, value.shape[-1]):
            before = components[-1]
            components.append(
                clamp(before + softplus(value[..., k]) * units[k - 1], just_above(before), ceilings[k])
            )
        return torch.stack(components, dim=-1)

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        units = self._unit(name, value)
        return torch.cat(
            [torch.zeros_like(value[..., :1]), log_slope_of_inverse(_gaps(value, units)) - units.log()],
            dim=-1,
        )


def _gaps(value: Tensor, units: Tensor | None = None) -> Tensor:
    """Differences x_k - x_(k-1) along the last axis, in units, (n, ..., d - 1).

    They are finite even where the difference overflows.
    """
    gaps = torch.minimum(value[..., 1:] - value[..., :-1], largest(value))
    return gaps if units is None else clamp(gaps / units, just_above(torch.zeros_like(gaps)), largest(value))
