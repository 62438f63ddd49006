"""Statistics of observations that depend on no network: of any shape, with masks, computed by formula.

A learned summary may be blind to what makes an observation odd, an outlier for instance; these are not. A set
or series (n, length, width) gives, for each channel: location, spread, extremes, shape, the largest outlier,
and what changes along the order of its elements; a vector (n, width) gives its values.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_WIDEST_VECTOR = 32
_MOST_CHANNELS = 16
_MOST_CHANNELS_IN_PAIRS = 4
_SHORTEST_SERIES = 4
_FLOOR = 1e-30

DERIVED = ("median", "log sd", "minimum", "maximum", "skewness", "log kurtosis")
"""Statistics that a shift, another scale, an outlier or a drift changes; the others are more specific."""

Named = dict[str, Tensor]


def observation_statistics(inputs: Mapping[str, tuple[Tensor, Tensor | None]]) -> Named:
    """Statistics, name to (n,) in float64, of inputs: label to values (n, ...) and mask (n, length) or None.

    The number of elements is none of them: p-values are given it.
    """
    statistics: Named = {}
    for label, (values, mask) in inputs.items():
        statistics |= _of_one(label, values.to(torch.float64), mask)
    return statistics


def _of_one(label: str, values: Tensor, mask: Tensor | None) -> Named:
    n = len(values)
    if (
        mask is None
        and values[0].numel() <= _WIDEST_VECTOR
        and (values.ndim == 2 or values.shape[1] < _SHORTEST_SERIES)
    ):
        flat = values.reshape(n, -1)
        return {label if flat.shape[1] == 1 else f"{label}[{i}]": flat[:, i] for i in range(flat.shape[1])}
    series = values[:, :, None] if values.ndim == 2 else values.reshape(n, -1, values.shape[-1])
    there = torch.ones(series.shape[:2], dtype=torch.bool, device=values.device)
    if mask is not None:
        flat = mask.flatten(1)
        there = flat.repeat_interleave(series.shape[1] // flat.shape[1], dim=1)
    if series.shape[-1] > _MOST_CHANNELS:
        there = there.repeat_interleave(series.shape[-1], dim=1)
        series = series.reshape(n, -1, 1)
    statistics: Named = {}
    width = series.shape[-1]
    names = [label if width == 1 else f"{label}[{c}]" for c in range(width)]
    for c, name in enumerate(names):
        statistics |= {
            f"{what} of {name}": value for what, value in _of_channel(series[:, :, c], there).items()
        }
    if width <= _MOST_CHANNELS_IN_PAIRS:
        for a in range(width):
            for b in range(a):
                product = _standard(series[:, :, a], there) * _standard(series[:, :, b], there)
                statistics[f"correlation of {names[b]} and {names[a]}"] = _mean(product, there)
    return statistics


def _of_channel(x: Tensor, there: Tensor) -> Named:
    """Statistics of a channel (n, length) whose elements count where `there` is True."""
    count = there.sum(dim=1)
    z, rank = _standard(x, there), there.cumsum(dim=1) - 1
    early = there & (2 * rank < count[:, None] - 1)
    late = there & (2 * rank > count[:, None] - 1)
    ordered = torch.where(there, x, torch.inf).sort(dim=1).values
    low, quarter, median, three_quarters, high = (
        _quantile(ordered, count, level) for level in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    neighbours = there[:, 1:] & there[:, :-1]
    sds = [_sd(x, part) for part in (early, late)]
    within = ((sds[0] ** 2 + sds[1] ** 2) / 2).sqrt().clamp_min(_FLOOR)
    return {
        "mean": _mean(x, there),
        "median": median,
        "log sd": _log(_sd(x, there)),
        "log interquartile range": _log(three_quarters - quarter),
        "minimum": low,
        "maximum": high,
        "skewness": _mean(z**3, there),
        "log kurtosis": _log(_mean(z**4, there)),
        "largest outlier": _log(torch.maximum(high - median, median - low)) - _log(three_quarters - quarter),
        "lag-1 autocorrelation": _mean(z[:, 1:] * z[:, :-1], neighbours),
        "shift between halves": (_mean(x, late) - _mean(x, early)) / within,
        "log ratio of the sds of the halves": _log(sds[1]) - _log(sds[0]),
    }


def _mean(x: Tensor, there: Tensor) -> Tensor:
    """(n,) of the elements of x (n, length) that are there; 0 for none."""
    return torch.where(there, x, 0.0).sum(dim=1) / there.sum(dim=1).clamp_min(1)


def _sd(x: Tensor, there: Tensor) -> Tensor:
    return _mean((x - _mean(x, there)[:, None]) ** 2, there).sqrt()


def _standard(x: Tensor, there: Tensor) -> Tensor:
    """x with mean 0 and sd 1 a row (n, length); 0 where all are equal."""
    return (x - _mean(x, there)[:, None]) / _sd(x, there).clamp_min(_FLOOR)[:, None]


def _quantile(ordered: Tensor, count: Tensor, level: float) -> Tensor:
    """(n,) of the first `count` of ordered values (n, length); 0 for none."""
    at = level * (count - 1).clamp_min(0)
    below, above = (ordered.gather(1, index.long()[:, None])[:, 0] for index in (at.floor(), at.ceil()))
    value = below + (above - below).nan_to_num(0.0) * (at - at.floor())
    return torch.where(count > 0, value, 0.0)


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(_FLOOR).log()
