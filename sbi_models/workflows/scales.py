"""On which scale the networks see a variable, found from the prior and the simulations: as it is, its root or logarithm, or its box mapped.

Parameters: draws of the prior that stop at a value, instead of thinning out towards it, have a bound there, and the network sees the real
line. Data: the scale on which a linear model with normal noise, given the parameters, has the highest likelihood, which counts the
Jacobian: G. E. P. Box, D. R. Cox, An analysis of transformations, J. R. Stat. Soc. B 26 (1964).
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
"""Share of a range that is looked at for a bound, at each end."""

_MANY_AT_AN_EDGE = 0.002
"""Share of the draws in there from which it is a bound; of normal draws less than a hundredth of that is there, of uniform ones five
times."""

_SPACINGS = 20.0
"""A bound is so many mean distances of draws beyond the last one, or a round number before that."""

_ROUND = 5.0
"""Round numbers are so many times as far apart as the stretch is long in which one is found."""

_MOST_DIGITS = 16

_FEWEST_DRAWS = 1000
_MOST_ROWS = 20_000


def parameter_bounds(draws: Array) -> Bounds:
    """Lower and upper bounds of each component of draws (n, d) of a prior, raw space; None where it has none.

    A component that is positive and has no bounds on the scale of its logarithm has the lower bound 0.
    """
    lower, upper = [], []
    for column in np.asarray(draws, dtype=float).T:
        low, high = _bounds(column)
        if low is not None and column.min() > 0 and _bounds(np.log(column)) == (None, None):
            low, high = 0.0, None
        elif (low, high) == (None, None) and column.min() > 0 and _skew(np.log(column)) < _skew(column):
            low = 0.0
        lower.append(low)
        upper.append(high)
    return lower, upper


def _bounds(column: FloatArray) -> tuple[float | None, float | None]:
    first, last = float(column.min()), float(column.max())
    width, n = last - first, len(column)
    if n < _FEWEST_DRAWS or width == 0.0:
        return None, None
    at_first = np.mean(column < first + _EDGE * width)
    at_last = np.mean(column > last - _EDGE * width)
    beyond = _SPACINGS * width / n
    low = _bound(first, first - beyond) if at_first > _MANY_AT_AN_EDGE else None
    high = _bound(last, last + beyond) if at_last > _MANY_AT_AN_EDGE else None
    return low, high


def _bound(last: float, outer: float) -> float:
    """A round number beyond the last draw and before the outer end, where there is one that is not there by chance; else the outer end."""
    number, step = _shortest_between(min(last, outer), max(last, outer))
    return number if step > _ROUND * abs(outer - last) else outer


def _shortest_between(low: float, high: float) -> tuple[float, float]:
    """The number of the fewest decimal digits strictly between two numbers, or their middle, and the distance of such numbers.

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
                candidates["sqrt"] = log_likelihood(np.sqrt(spread), inputs) + _mean_sum(-0.5 * np.log(spread) - math.log(2))
        if values.min() > 0 and not whole.all():
            candidates["log"] = log_likelihood(np.log(spread), inputs) + _mean_sum(-np.log(spread))
        chosen[name] = max(candidates, key=lambda scale: candidates[scale])
    return chosen


def _mean_sum(log_slopes: FloatArray) -> float:
    return float(log_slopes.sum(axis=1).mean())


def regressors(parameters: FloatArray) -> FloatArray:
    """A constant, standardised parameters (n, k) and their squares, (n, 1 + 2 k)."""
    standardised = (parameters - parameters.mean(axis=0)) / np.maximum(parameters.std(axis=0), 1e-300)
    return np.concatenate([np.ones((len(standardised), 1)), standardised, standardised**2], axis=1)


def log_likelihood(values: FloatArray, inputs: FloatArray) -> float:
    """The highest mean log density in nats of normals with means linear in the inputs (n, p) and constant variances, of values (n, d)."""
    centred = values - values.mean(axis=0)
    rest = centred - inputs @ np.linalg.lstsq(inputs, centred, rcond=None)[0]
    variance = np.maximum((rest**2).mean(axis=0), 1e-12 * np.maximum((values**2).mean(axis=0), 1e-300))
    return float(-0.5 * np.log(variance).sum())


def adapter_of(bounds: Mapping[str, Bounds], scales: Mapping[str, str]) -> Adapter:
    """The steps that bounds of parameters and scales of data stand for, to be followed by the routing of roles."""
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
        parts = [f"({'-inf' if a is None else f'{a:g}'}, {'inf' if b is None else f'{b:g}'})" for a, b in zip(lower, upper, strict=True)]
        words[name] = f"support {parts[0]}" if len(set(parts)) == 1 else f"support {' x '.join(parts)}"
    return words | {name: f"scale {scale}" for name, scale in scales.items()}
