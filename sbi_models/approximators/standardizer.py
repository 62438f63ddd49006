"""Standardization with moments that are computed once from data and then frozen."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sbi_models.adapters.transforms.numbers import ROUNDING, power_of_two_like


class Standardizer(nn.Module):
    """Standardization (z - mean) / sd of the named roles, over all axes but the last.

    It takes adapted space to standardized space.
    """

    def __init__(self, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.roles = roles

    def declare(self, widths: dict[str, int]) -> None:
        """Make room for the moments of each standardized role, before they are fitted or loaded."""
        for role in self.roles:
            if role in widths:
                self.register_buffer(f"{role}_mean", torch.zeros(widths[role], dtype=torch.float64))
                self.register_buffer(f"{role}_sd", torch.ones(widths[role], dtype=torch.float64))

    @property
    def widths(self) -> dict[str, int]:
        """Number of components of each role that has moments."""
        return {
            role: len(getattr(self, f"{role}_mean")) for role in self.roles if hasattr(self, f"{role}_mean")
        }

    def fit(self, batch: dict[str, Tensor], masks: dict[str, Tensor] | None = None) -> None:
        """Compute the moments from adapted data; a constant column keeps an sd of 1.

        Elements count where their mask (n, length) is True.
        """
        for role in self.roles:
            if role in batch:
                values = batch[role].to(torch.float64)
                mask = (masks or {}).get(role)
                values = (
                    values.reshape(-1, values.shape[-1]) if mask is None or not mask.any() else values[mask]
                )
                power = power_of_two_like(values)
                values = values / power
                sd = values.std(dim=0, correction=0)
                varies = values.amax(dim=0) - values.amin(dim=0) > ROUNDING * values.abs().amax(dim=0)
                getattr(self, f"{role}_mean").copy_(values.mean(dim=0) * power)
                getattr(self, f"{role}_sd").copy_(torch.where(varies, sd * power, torch.ones_like(sd)))

    def leave(self, role: str, columns: Iterable[int]) -> None:
        """Leave columns of a role as they are, such as categories and counts: mean 0, sd 1."""
        if hasattr(self, f"{role}_mean"):
            for column in columns:
                getattr(self, f"{role}_mean")[column] = 0.0
                getattr(self, f"{role}_sd")[column] = 1.0

    def forward(self, role: str, value: Tensor) -> Tensor:
        """Adapted to standardized."""
        if not hasattr(self, f"{role}_mean"):
            return value
        standardized: Tensor = (value - getattr(self, f"{role}_mean")) / getattr(self, f"{role}_sd")
        return standardized

    def inverse(self, role: str, value: Tensor) -> Tensor:
        """Standardized to adapted."""
        if not hasattr(self, f"{role}_mean"):
            return value
        adapted: Tensor = value * getattr(self, f"{role}_sd") + getattr(self, f"{role}_mean")
        return adapted

    def log_abs_det(self, role: str) -> Tensor | float:
        """log |det d standardized / d adapted| in nats, a scalar."""
        return -getattr(self, f"{role}_sd").log().sum() if hasattr(self, f"{role}_sd") else 0.0
