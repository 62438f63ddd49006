"""Masks of sets, series and images: checks, and means, spreads and counts of what is there.

A mask is True where an element counts. What does not count is put to zero before anything is computed from
it, so that it may hold anything, NaN too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sbi_models.errors import DataError

_SMALLEST_VARIANCE = 1e-6
"""Smallest variance of a feature of elements; keeps the log of the spread of equal elements finite."""


def without_padding(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """x (n, *places, features) with zeros where the mask (n, *places) is False, and the mask as booleans.

    Raises:
        DataError: if the mask has not the leading axes of x.
    """
    if mask is None:
        return x, None
    if mask.shape != x.shape[:-1]:
        raise DataError(
            f"Expected a mask of shape {tuple(x.shape[:-1])}, one value for each place of "
            f"{tuple(x.shape)}, got {tuple(mask.shape)}."
        )
    present = mask.to(torch.bool)
    return x.masked_fill(~present[..., None], 0.0), present


def mean_over(h: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the elements that count, (n, length, d) to (n, d); 0 where there are none."""
    if mask is None:
        return h.mean(dim=1)
    present = mask.to(h.dtype)[..., None]
    return (h * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)


def log_spread_over(h: Tensor, mask: Tensor | None, mean: Tensor) -> Tensor:
    """Log sd of the elements that count around their mean (n, d): (n, length, d) to (n, d)."""
    return 0.5 * (mean_over((h - mean[:, None, :]).square(), mask) + _SMALLEST_VARIANCE).log()


def log_count(h: Tensor, mask: Tensor | None) -> Tensor:
    """Log of the number of elements that count, at least 1, (n, 1), for h (n, length, d)."""
    if mask is None:
        return h.new_full((len(h), 1), float(h.shape[1])).log()
    return mask.to(h.dtype).sum(dim=1, keepdim=True).clamp(min=1).log()


SETS_ONLY = (
    "Add an axis to a set of scalars: x[..., None]. If its order matters, use time_series_network; a short "
    "vector needs no summary network and goes into inference_conditions."
)
"""The cure for data that are no sets."""


def check_axes(name: str, input_shape: Sequence[int], axes: Sequence[str], cure: str) -> None:
    """Raise DataError unless inputs have these axes.

    Args:
        name: name of the network and what it summarizes, for the message.
        input_shape: shape without the rows.
        axes: names of the axes that are expected.
        cure: what to do about a wrong shape.
    """
    if len(input_shape) != len(axes) or min(input_shape) < 1:
        got = ", ".join(map(str, ("n", *input_shape)))
        raise DataError(f"{name}: expected variables of shape (n, {', '.join(axes)}), got ({got}). {cure}")
