"""Arguments of simulator calls, checked and converted: workers, batch shapes, fixed values."""

from collections.abc import Callable, Mapping
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any

from sbi_models.errors import ConfigurationError
from sbi_models.numeric_input import real_array
from sbi_models.types import Array

if TYPE_CHECKING:
    from torch.distributions import Distribution

Function = Callable[..., Mapping[str, Any]]
Part = Function | Mapping[str, "Distribution"]


def as_function(part: Part) -> Function:
    """A part of a simulator as a function; a dict of torch distributions becomes one that draws from them."""
    if not isinstance(part, Mapping):
        return part
    from sbi_models.simulators.priors import TorchPrior  # noqa: PLC0415 - imports torch, which other simulators do not need

    return TorchPrior(part)


def as_processes(workers: int | None) -> int:
    """Number of simulating processes: 1 is this process alone, -1 one per core."""
    try:
        number = 1 if workers is None else index(workers)
    except TypeError:
        number = 0
    if isinstance(workers, bool) or (number < 1 and number != -1):
        raise ConfigurationError(
            "Expected workers as a positive integer, -1 for one a core, or None for no other "
            f"process, got {workers!r}."
        )
    return number


def as_shape(batch_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """Leading axes of the draws, as a tuple."""
    try:
        shape = (
            tuple(index(n) for n in batch_shape) if isinstance(batch_shape, tuple) else (index(batch_shape),)
        )
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ConfigurationError(
            f"Expected a positive number of simulations, or a tuple of them, got {batch_shape!r}."
        )
    return shape


def fixed_array(name: str, value: Any) -> Array:
    """A fixed value as an array; raises DataError unless it is real numbers of one shape."""
    return real_array(value, f"the fixed value of {name!r}")


def flattened(value: Array, shape: tuple[int, ...]) -> Array:
    """Flatten several leading batch axes of a fixed value into one."""
    if len(shape) > 1 and value.shape[: len(shape)] == shape:
        return value.reshape(prod(shape), *value.shape[len(shape) :])
    return value
