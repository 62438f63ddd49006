"""Subnets, the networks inside inference networks, by name and size."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sbi_models.errors import ConfigurationError, suggest
from sbi_models.registry import Registry

SIZES = {"small": (64, 64), "medium": (128, 128, 128, 128), "large": (256, 256, 256, 256, 256)}
"""Hidden widths by name."""

Widths = str | Sequence[int]
"""Hidden widths: a name of `SIZES`, or the widths themselves."""


class Subnet(Protocol):
    """Protocol of the networks inside inference networks.

    Made as `cls(in_dim, out_dim, condition_dim, widths, has_time=...)`; its last layer should start at zero.
    """

    def __call__(self, x: Tensor, conditions: Tensor, t: Tensor | None = None) -> Tensor:
        """Output (..., out_dim) for x (..., in_dim), conditions (..., condition_dim), t (..., 1).

        Times lie in [0, 1]; the leading axes are broadcast.
        """


C = TypeVar("C", bound=type[nn.Module])

SUBNETS: Registry[Callable[..., Any]] = Registry("subnet")
"""Class of each subnet by its name."""


def register_subnet(name: str) -> Callable[[C], C]:
    """Class decorator that registers a subnet under a name, for files and `subnet="name"`; see `Subnet`.

    Raises:
        ConfigurationError: if another class has the name.
    """
    return SUBNETS.register(name)


def checked_widths(widths: Widths) -> tuple[int, ...]:
    """Hidden widths of a named size or of a sequence.

    Raises:
        ConfigurationError: for an unknown size, no width, or a width below 1.
    """
    if isinstance(widths, str):
        if widths not in SIZES:
            raise ConfigurationError(f"Unknown size {widths!r} of a subnet. {suggest(widths, SIZES)}")
        return SIZES[widths]
    if not len(widths) or min(widths) < 1:
        raise ConfigurationError(
            f"Expected one or more widths of at least 1, or one of {', '.join(SIZES)}, got {tuple(widths)}."
        )
    return tuple(int(width) for width in widths)


def check_subnet(name: str, widths: Widths) -> None:
    """Raise ConfigurationError unless such a subnet can be made, in constructors, before data are known."""
    with torch.random.fork_rng(devices=[]):
        make_subnet(name, 1, 1, 1, widths, has_time=True)


def make_subnet(
    name: str, in_dim: int, out_dim: int, condition_dim: int, widths: Widths, *, has_time: bool
) -> Any:
    """A new subnet of a registered name: a module that satisfies `Subnet`."""
    return SUBNETS.named(name)(in_dim, out_dim, condition_dim, checked_widths(widths), has_time=has_time)
