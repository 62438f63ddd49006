"""From increasing vectors to all real vectors."""

import torch
from torch import Tensor

from sbi_models.adapters.transforms.base import Elementwise
from sbi_models.adapters.transforms.softplus import inverse_softplus, log_slope_of_inverse, softplus
from sbi_models.adapters.transforms.support import Requirement, clamp, just_above, just_below, largest


class Ordered(Elementwise):
    """Takes x_1 < x_2 < ... < x_d along the last axis of (n, ..., d) to any real numbers, of the same shape.

    z_1 = x_1 and z_k = inverse_softplus(y_k) with the gap y_k = x_k - x_(k-1). The Jacobian is triangular; its log diagonal is 0 for
    the first component and -log(1 - exp(-y_k)) for the others. Source: ordered vectors of the Stan reference manual, with softplus in
    place of exp. Draws taken back increase strictly, also after rounding.
    """

    kind = "ordered"

    def _requirements(self, name: str, value: Tensor) -> list[Requirement]:
        del name
        cure = "Sort the components in the simulator; for parameters without an order, do not constrain them."
        later, earlier = value[..., 1:], value[..., :-1]
        return [Requirement(later > earlier, "greater than the component before it (adapter.constrain, to='ordered')", cure, later)]

    def _map(self, name: str, value: Tensor) -> Tensor:
        self._check(name, value)
        return torch.cat([value[..., :1], inverse_softplus(_gaps(value))], dim=-1)

    def _unmap(self, name: str, value: Tensor) -> Tensor:
        del name
        ceilings = [largest(value)]
        for _ in range(value.shape[-1] - 1):
            ceilings.insert(0, just_below(ceilings[0]))
        components = [clamp(value[..., 0], -largest(value), ceilings[0])]
        for k in range(1, value.shape[-1]):
            before = components[-1]
            components.append(clamp(before + softplus(value[..., k]), just_above(before), ceilings[k]))
        return torch.stack(components, dim=-1)

    def _log_slope(self, name: str, value: Tensor) -> Tensor:
        del name
        return torch.cat([torch.zeros_like(value[..., :1]), log_slope_of_inverse(_gaps(value))], dim=-1)


def _gaps(value: Tensor) -> Tensor:
    """x_k - x_(k-1) along the last axis, finite even where the difference overflows; (n, ..., d - 1)."""
    return torch.minimum(value[..., 1:] - value[..., :-1], largest(value))
