"""Monotone rational-quadratic splines: smooth increasing maps of the real line, exact in both directions.

Between the knots (x_k, y_k) and (x_k+1, y_k+1), with the slopes d_k and d_k+1 there, s = (y_k+1 - y_k) /
(x_k+1 - x_k) and u = (x - x_k) / (x_k+1 - x_k),

    y = y_k + (y_k+1 - y_k) (s u^2 + d_k u (1 - u)) / (s + (d_k + d_k+1 - 2 s) u (1 - u)),

whose inverse is the root of a quadratic. The knots span [-bound, bound] in both directions; outside the map
is the identity, and the slopes at the two ends are 1, so that it is smooth everywhere.

C. Durkan et al., Neural spline flows, NeurIPS 2019, arXiv:1906.04032; J. A. Gregory and R. Delbourgo,
Piecewise rational quadratic interpolation to monotonic data, IMA Journal of Numerical Analysis 2 (1982).
"""

import torch
from torch import Tensor

_SMALLEST_BIN = 0.05
"""Share of the mean width and of the mean height that every bin has; keeps the inverse accurate in
float32."""

_LARGEST_LOG_SLOPE = 3.5
"""Slopes at the knots lie between exp(-3.5) = 0.03 and exp(3.5) = 33."""


def bounded(raw: Tensor, largest: float) -> Tensor:
    """Raw numbers squeezed into (-largest, largest), with slope 1 at zero."""
    return largest * torch.tanh(raw / largest)


def spline_width(bins: int) -> int:
    """Raw numbers of one spline: widths and heights of the bins, slopes at the inner knots."""
    return 3 * bins - 1


def spline_forward(x: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """y and log dy/dx, both of the shape (...) of x.

    The leading axes of the raw numbers (..., 3 bins - 1) may be broadcast to x.
    """
    within = x.clamp(-bound, bound)
    x0, x1, y0, y1, d0, d1 = _bin(_knots(raw, bound), 0, within)
    width, height = x1 - x0, y1 - y0
    s = height / width
    u = ((within - x0) / width).clamp(0, 1)
    share, log_slope = _rational_quadratic(u, s, d0, d1)
    inside = x.abs() < bound
    return torch.where(inside, y0 + height * share, x), torch.where(inside, log_slope, torch.zeros_like(x))


def spline_inverse(y: Tensor, raw: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """x and log dx/dy, both of the shape (...) of y; the inverse of `spline_forward`."""
    within = y.clamp(-bound, bound)
    x0, x1, y0, y1, d0, d1 = _bin(_knots(raw, bound), 1, within)
    width, height = x1 - x0, y1 - y0
    s = height / width
    v = ((within - y0) / height).clamp(0, 1)
    bend = (d0 + d1 - 2 * s) * v
    a, b, c = s - d0 + bend, d0 - bend, -s * v
    # Of the two forms of the root in [0, 1] this is the one that holds where a is zero.
    root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
    u = (2 * c / (-b - root)).clamp(0, 1)
    _, log_slope = _rational_quadratic(u, s, d0, d1)
    inside = y.abs() < bound
    return torch.where(inside, x0 + width * u, y), torch.where(inside, -log_slope, torch.zeros_like(y))


def _knots(raw: Tensor, bound: float) -> Tensor:
    """Positions x, y and slopes of the knots, (..., 3, bins + 1), increasing from -bound to bound."""
    bins = (raw.shape[-1] + 1) // 3
    shares = raw[..., : 2 * bins].reshape(*raw.shape[:-1], 2, bins).softmax(dim=-1)
    shares = _SMALLEST_BIN / bins + (1 - _SMALLEST_BIN) * shares
    inner = 2 * bound * shares[..., :-1].cumsum(dim=-1) - bound
    slopes = bounded(raw[..., None, 2 * bins :], _LARGEST_LOG_SLOPE).exp()
    edge = torch.ones_like(slopes[..., :1])
    ends = torch.cat([edge * bound, edge * bound, edge], dim=-2)
    starts = torch.cat([edge * -bound, edge * -bound, edge], dim=-2)
    return torch.cat([starts, torch.cat([inner, slopes], dim=-2), ends], dim=-1)


def _bin(knots: Tensor, row: int, value: Tensor) -> tuple[Tensor, ...]:
    """x, y and slope at the knots on both sides of each value (...), looked up in x (row 0) or y (row 1)."""
    left = (value[..., None] >= knots[..., row, 1:-1]).sum(dim=-1)
    index = torch.stack([left, left + 1], dim=-1)[..., None, :]
    around = knots.expand(*value.shape, *knots.shape[-2:]).gather(-1, index.expand(*value.shape, 3, 2))
    x0, x1, y0, y1, d0, d1 = around.flatten(-2).unbind(dim=-1)
    return x0, x1, y0, y1, d0, d1


def _rational_quadratic(u: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """Relative height in a bin, (y - y_k) / (y_k+1 - y_k), and log dy/dx, at u in [0, 1].

    The bin has mean slope s, and slopes d0 and d1 at its ends.
    """
    product = u * (1 - u)
    below = s + (d0 + d1 - 2 * s) * product
    above = d1 * u.square() + 2 * s * product + d0 * (1 - u).square()
    return (s * u.square() + d0 * product) / below, 2 * (s / below).log() + above.log()
