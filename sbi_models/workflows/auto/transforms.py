"""Automatic transforms: bounds of parameters from prior draws, log or sqrt of data by their likelihood.

Parameters: a prior has a bound where its draws stop, or where they thin out as a power of the distance to
some value (the shape of a generalized Pareto distribution of the extreme draws is negative); the network then
sees the real line. J. R. M. Hosking, J. R. Wallis, Parameter and quantile estimation for the generalized
Pareto distribution, Technometrics 29 (1987). Data: the scale on which a linear model with normal noise, given
the parameters, has the highest likelihood, which counts the Jacobian: G. E. P. Box, D. R. Cox, An analysis of
transformations, J. R. Stat. Soc. B 26 (1964).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sbi_models.adapters import Adapter
from sbi_models.types import Array, FloatArray, Variables

Bounds = tuple[list[float | None], list[float | None]]
"""Lower and upper bounds of each component; None where there is none."""

_EDGE = 0.01
"""Share of a range, at each end, in which a bound is sought."""

_MANY_AT_AN_EDGE = 0.002
"""Share of draws at an edge from which there is a bound.

Normal draws have less than a hundredth of it there, uniform ones five times as much.
"""

_SPACINGS = 20.0
"""Distance of a bound from the last draw, in mean distances of draws, unless a round number is nearer."""

_ROUND = 5.0
"""Least spacing of round numbers, in units of the interval in which one is taken as a bound."""

_MOST_DIGITS = 16

_FEWEST_DRAWS = 1000

_TAIL = 0.05
"""Share of the draws, at each end, whose distances are fitted."""

_SHAPE, _SHAPE_ERROR = -0.3, 1.5
"""Largest generalized Pareto shape of a bound, and the number of standard errors that it must be below.

The shape is about -0.15 for a normal distribution, 0 for an exponential tail, and -1 / (k + 1) where the
density vanishes as the k-th power of the distance, such as -1/2 for Beta(2, 2).
"""

_MARGIN = 0.05
"""Share of the range of the draws, beyond an extrapolated end, in which a round number replaces it."""

_REACHED, _UNIT_SHARE = 0.05, 0.75
"""Distance from 0, in medians, of positive draws with the bound 0; share of (0, 1) for both bounds."""

_WIDE = math.log(100)
"""Range of the logarithms of draws from which their ends are estimated on that scale, too."""

_MANY_LOGARITHMS = 0.006
"""Share of logarithms at an edge from which there is a bound; uniform ones have 0.01 there.

Distributions with heavy tails put more logarithms near an end than draws.
"""

_MOST_ROWS = 20_000

_WHOLE = 1e-6
"""Largest deviation of the sum of shares from 1."""


def parameter_bounds(draws: Array) -> Bounds:
    """Lower and upper bounds of each component of draws (n, d) of a prior, raw space; None where it has none.

    A component that is positive and has no bounds on the scale of its logarithm has the lower bound 0;
    logarithms of draws over some powers of ten are looked at for an end, too.
    """
    lower, upper = [], []
    for column in np.asarray(draws, dtype=float).T:
        low, high = _bounds(column)
        positive = bool(column.min() > 0)
        edges = _edges_of_logarithms(column) if positive else (None, None)
        if edges[0] is not None:
            low, high = edges[0], edges[1] if high is None else high
        elif low is not None and positive and _bounds(np.log(column)) == (None, None):
            low, high = 0.0, None
        elif positive and len(column) >= _FEWEST_DRAWS:
            low, high = _natural_bounds(column, low, high)
        lower.append(low)
        upper.append(high)
    return lower, upper


def _edges_of_logarithms(column: FloatArray) -> tuple[float | None, float | None]:
    """Ends of positive draws over some powers of ten, on the scale of their logarithms.

    Such are the draws of a log-uniform prior.
    """
    logs, n = np.log(column), len(column)
    first, last = float(logs.min()), float(logs.max())
    width = last - first
    if n < _FEWEST_DRAWS or width < _WIDE:
        return None, None
    low, high, slack = float(column.min()), float(column.max()), math.exp(_SPACINGS * width / n)
    return (
        _bound(low, low / slack) if np.mean(logs < first + _EDGE * width) > _MANY_LOGARITHMS else None,
        _bound(high, high * slack) if np.mean(logs > last - _EDGE * width) > _MANY_LOGARITHMS else None,
    )


def _natural_bounds(
    column: FloatArray, low: float | None, high: float | None
) -> tuple[float | None, float | None]:
    """Bounds of positive draws whose ends thin out: 0 for positive numbers, 1 for shares."""
    if (
        low is None
        and high is None
        and (column.min() < _REACHED * np.median(column) or _skew(np.log(column)) < _skew(column))
    ):
        low = 0.0
    width = column.max() - column.min()
    if column.max() < 1 and width > (
        _UNIT_SHARE / 2 if 0.0 in (low, high) or 1.0 in (low, high) else _UNIT_SHARE
    ):
        low, high = 0.0 if low is None else low, 1.0 if high is None else high
    return low, high


def _bounds(column: FloatArray) -> tuple[float | None, float | None]:
    first, last = float(column.min()), float(column.max())
    width, n = last - first, len(column)
    if n < _FEWEST_DRAWS or width == 0.0:
        return None, None
    return _lower_bound(column, first, width), _negative(_lower_bound(-column, -last, width))


def _lower_bound(column: FloatArray, first: float, width: float) -> float | None:
    """Where draws stop, or thin out towards; None where neither is to be seen."""
    if np.mean(column < first + _EDGE * width) > _MANY_AT_AN_EDGE:
        return _bound(first, first - _SPACINGS * width / len(column))
    shape, end = _generalized_pareto(column)
    error = 1.3 / math.sqrt(_TAIL * len(column))
    if shape >= _SHAPE - _SHAPE_ERROR * error:
        return None
    return _bound(first, min(end, first) - _MARGIN * width, rounder=1.0)


def _generalized_pareto(column: FloatArray) -> tuple[float, float]:
    """Shape and lower end of a generalized Pareto distribution of the lowest draws.

    The fit is by probability-weighted moments.
    """
    k = int(_TAIL * len(column))
    lowest = np.partition(column, k)[: k + 1]
    threshold = lowest.max()
    distances = np.sort(threshold - lowest)[1:]
    mean = distances.mean()
    weighted = float(np.mean((1 - (np.arange(1, k + 1) - 0.35) / k) * distances))
    if mean <= 2 * weighted:  # ties, or a tail without a mean
        return math.inf, -math.inf
    shape = 2 - mean / (mean - 2 * weighted)
    scale = 2 * mean * weighted / (mean - 2 * weighted)
    return float(shape), float(threshold - scale / -shape) if shape < 0 else -math.inf


def _negative(value: float | None) -> float | None:
    return None if value is None else 0.0 - value


def _bound(last: float, outer: float, rounder: float = _ROUND) -> float:
    """Bound between the last draw and the outer end: a round number if it is not there by chance.

    Otherwise it is the outer end.
    """
    number, step = _shortest_between(min(last, outer), max(last, outer))
    return number if step > rounder * abs(outer - last) else outer


def _shortest_between(low: float, high: float) -> tuple[float, float]:
    """Number of the fewest decimal digits strictly between two numbers, or their middle, and its spacing.

    >>> _shortest_between(2.9998, 3.0003)
    (3.0, 1.0)
    """
    if low < 0 < high:
        return 0.0, math.inf
    largest = math.floor(math.log10(max(abs(low), abs(high)))) + 1
    for digits in range(-largest, _MOST_DIGITS - largest):
        step = 10.0**-digits
        candidate = round((math.floor(low / step) + 1) * step, digits)
        if low < candidate < high:
            return candidate, step
    return (low + high) / 2, 0.0


def _skew(column: FloatArray) -> float:
    centred = column - column.mean()
    return float(abs((centred**3).mean()) / max((centred**2).mean(), 1e-300) ** 1.5)


def is_count(column: Array) -> bool:
    """Whether values (n,) are whole numbers."""
    values = np.asarray(column, dtype=float)
    return bool((values == np.round(values)).all())


def data_scales(names: list[str], data: Variables, parameters: FloatArray) -> dict[str, str]:
    """ "identity", "sqrt" or "log" for each variable (n, d), raw space, given parameters (n, k)."""
    rows = slice(0, _MOST_ROWS)
    inputs = regressors(parameters[rows])
    chosen = {}
    for name in names:
        values = np.asarray(data[name][rows], dtype=float).reshape(len(inputs), -1)
        whole = np.array([is_count(column) for column in values.T])
        spread = values + np.where(whole, np.random.default_rng(0).uniform(size=values.shape), 0.0)
        candidates = {"identity": log_likelihood(spread, inputs)}
        if values.min() >= 0:
            with np.errstate(divide="ignore"):
                candidates["sqrt"] = log_likelihood(np.sqrt(spread), inputs) + _mean_sum(
                    -0.5 * np.log(spread) - math.log(2)
                )
        if values.min() > 0 and not whole.all():
            candidates["log"] = log_likelihood(np.log(spread), inputs) + _mean_sum(-np.log(spread))
        chosen[name] = max(candidates, key=lambda scale: candidates[scale])
    return chosen


def _mean_sum(log_slopes: FloatArray) -> float:
    return float(log_slopes.sum(axis=1).mean())


def regressors(parameters: FloatArray) -> FloatArray:
    """A constant, standardized parameters (n, k) and their squares, (n, 1 + 2 k)."""
    standardized = (parameters - parameters.mean(axis=0)) / np.maximum(parameters.std(axis=0), 1e-300)
    return np.concatenate([np.ones((len(standardized), 1)), standardized, standardized**2], axis=1)


def log_likelihood(values: FloatArray, inputs: FloatArray) -> float:
    """Highest mean log density, in nats, of a linear model with normal noise.

    Values (n, d) have means linear in the inputs (n, p) and constant variances.
    """
    centred = values - values.mean(axis=0)
    rest = centred - inputs @ np.linalg.lstsq(inputs, centred, rcond=None)[0]
    variance = np.maximum((rest**2).mean(axis=0), 1e-12 * np.maximum((values**2).mean(axis=0), 1e-300))
    return float(-0.5 * np.log(variance).sum())


def real_line(name: str, draws: Array) -> Adapter:
    """Adapter steps that take a variable to the real line, from draws (n, d) of its prior, raw space.

    There are none where the draws show no bounds.

    Rows that are compositions (shares of a whole) become d - 1 log ratios.
    """
    values = np.asarray(draws, dtype=float)
    if values.ndim != 2 or any(is_count(column) for column in values.T):
        return Adapter()
    if values.shape[1] > 1 and values.min() > 0 and np.abs(values.sum(axis=1) - 1).max() < _WHOLE:
        return Adapter().constrain(name, to="simplex")
    lower, upper = parameter_bounds(values)
    if all(bound is None for bound in (*lower, *upper)):
        return Adapter()
    return Adapter().constrain(name, lower=lower, upper=upper, scale="probit")


def adapter_of(bounds: Mapping[str, Bounds], scales: Mapping[str, str]) -> Adapter:
    """Adapter steps of bounds of parameters and scales of data, to be followed by the routing of roles."""
    adapter = Adapter()
    for name, (lower, upper) in bounds.items():
        if any(bound is not None for bound in (*lower, *upper)):
            adapter = adapter.constrain(name, lower=lower, upper=upper)
    for name, scale in scales.items():
        adapter = adapter.log(name) if scale == "log" else adapter.sqrt(name) if scale == "sqrt" else adapter
    return adapter


def in_words(bounds: Mapping[str, Bounds], scales: Mapping[str, str]) -> dict[str, Any]:
    """What was chosen, for people: name to a text."""
    words: dict[str, Any] = {}
    for name, (lower, upper) in bounds.items():
        parts = [
            f"({'-inf' if a is None else f'{a:g}'}, {'inf' if b is None else f'{b:g}'})"
            for a, b in zip(lower, upper, strict=True)
        ]
        words[name] = f"support {parts[0]}" if len(set(parts)) == 1 else f"support {' x '.join(parts)}"
    return words | {name: f"scale {scale}" for name, scale in scales.items()}
