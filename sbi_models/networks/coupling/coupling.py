"""Coupling layer: some components are unchanged and give the raw numbers that transform the others."""

from typing import Any

import torch
from torch import Tensor, nn

from sbi_models.networks.coupling.transforms import Transform
from sbi_models.networks.layers import Widths, make_subnet


class Coupling(nn.Module):
    """Transforms `changed` components given `kept` others and the conditions.

    With none kept, the conditions alone give the raw numbers, computed once a data set; without conditions
    too, they are parameters. Raw numbers start at zero, so that every coupling starts as the identity.
    """

    def __init__(
        self,
        transform: Transform,
        *,
        unchanged: int,
        changed: int,
        condition_dim: int,
        subnet: str,
        widths: Widths,
    ) -> None:
        super().__init__()
        self.transform, self.unchanged, self.changed = transform, unchanged, changed
        numbers = changed * transform.width
        self.subnet: Any = None
        if unchanged:
            self.subnet = make_subnet(subnet, unchanged, numbers, condition_dim, widths, has_time=False)
        elif condition_dim:
            self.subnet = make_subnet(subnet, condition_dim, numbers, 0, widths, has_time=False)
        else:
            self.constant = nn.Parameter(torch.zeros(numbers))

    def forward(self, unchanged: Tensor, changed: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """The transformed components (..., changed) and the log determinant (...), towards the base."""
        z, log_slope = self.transform.forward(changed, self._raw(unchanged, conditions))
        return z, log_slope.sum(dim=-1)

    def inverse(self, unchanged: Tensor, changed: Tensor, conditions: Tensor) -> Tensor:
        """The components (..., changed) that `forward` takes to these, away from the base."""
        return self.transform.inverse(changed, self._raw(unchanged, conditions))[0]

    def _raw(self, unchanged: Tensor, conditions: Tensor) -> Tensor:
        """Raw numbers (..., changed, transform.width).

        The leading axes may be broadcast to those of the components.
        """
        raw: Tensor
        if self.subnet is None:
            raw = self.constant
        elif self.unchanged:
            raw = self.subnet(unchanged, conditions)
        else:
            raw = self.subnet(conditions, conditions[..., :0])
        return raw.reshape(*raw.shape[:-1], self.changed, self.transform.width)
