"""Transforms that a learned likelihood is trained with by default, chosen by simulations.

Observables: categories and counts are declared discrete; others are taken on the scale, as they are, root or
logarithm, on which a linear model with normal noise, given the parameters, has the highest likelihood.
Parameters: as they are, on the real line by their bounds, or as logarithms, by the same likelihood.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.distributions import Distribution

from sbi_models.adapters import Adapter
from sbi_models.adapters.transforms import AsCategorical, AsCount, Transform
from sbi_models.types import Array, FloatArray, Variables
from sbi_models.workflows.auto.transforms import (
    data_scales,
    is_count,
    log_likelihood,
    parameter_bounds,
    regressors,
)
from sbi_models.workflows.likelihood.prior import support_bounds

_MOST_CATEGORIES, _FEWEST_OF_EACH, _FEWEST_COUNTS = 64, 5, 4
_MOST_ROWS = 20_000


def chosen_adapter(
    elements: Variables,
    *,
    parameters: Sequence[str],
    observables: Sequence[str],
    priors: Mapping[str, Distribution],
) -> Adapter:
    """Steps for elements, raw variables (n, ...), to be followed by the routing of roles."""
    rows = {name: value[:_MOST_ROWS] for name, value in elements.items()}
    discrete = [
        step for name in observables if elements[name].ndim == 2 for step in _discrete(name, elements)
    ]
    declared = {name for step in discrete for name in step.names}  # type: ignore[attr-defined]
    plain = [name for name in observables if name not in declared and elements[name].ndim == 2]
    given = [name for name in parameters if rows[name].ndim == 2]
    inputs = np.concatenate([rows[name] for name in given], axis=1)
    scales = data_scales(plain, rows, inputs) if plain else {}
    seen = Adapter(discrete)
    for name, scale in scales.items():
        seen = seen.log(name) if scale == "log" else seen.sqrt(name) if scale == "sqrt" else seen
    targets = _numbers(seen, rows, observables, declared)
    if not targets.shape[
        1
    ]:  # categories have logits, of which bounded parameters are nearly linear functions
        bounded = {name: Adapter().constrain(name, prior=priors[name]) for name in given if name in priors}
        return Adapter((*(step for one in bounded.values() for step in one.transforms), *seen.transforms))
    return Adapter((*_parameters(rows, elements, given, priors, targets).transforms, *seen.transforms))


def _discrete(name: str, elements: Variables) -> Iterator[Transform]:
    """Steps that declare components of an observable (n, d) categories or counts."""
    categories, counts = {}, []
    for k, column in enumerate(np.asarray(elements[name], dtype=float).T):
        if not is_count(column):
            continue
        distinct, numbers = np.unique(column, return_counts=True)
        few = len(distinct) <= _MOST_CATEGORIES and numbers.min() >= _FEWEST_OF_EACH
        if few or len(distinct) < _FEWEST_COUNTS:
            categories[k] = [float(value) for value in distinct]
        elif distinct[0] >= 0:
            counts.append(k)
    width = elements[name].shape[1]
    if categories:
        components = None if len(categories) == width else list(categories)
        yield AsCategorical(name, {name: list(categories.values())}, components)
    if counts:
        yield AsCount(name, None, None if len(counts) == width else counts)


def _numbers(adapter: Adapter, rows: Variables, observables: Sequence[str], discrete: set[str]) -> FloatArray:
    """Observables (n, k) as numbers that a linear model may have: logarithms of counts, and scaled others."""
    raw = {name: torch.as_tensor(rows[name], dtype=torch.float64) for name in observables}
    adapted = adapter.fitted(raw).forward(raw)
    categories = {
        (name, k)
        for step in adapter.transforms
        if isinstance(step, AsCategorical)
        for name in step.names
        for k in (range(rows[name].shape[1]) if step.components is None else step.components)
    }
    columns = []
    for name in observables:
        values = adapted[name].numpy()
        for k, column in enumerate(values.T if values.ndim == 2 else ()):
            if (name, k) not in categories:
                is_number_of = name in discrete and is_count(column) and column.min() >= 0
                columns.append(np.log(column + 0.5) if is_number_of else column)
    return np.stack(columns, axis=1) if columns else np.zeros((len(next(iter(rows.values()))), 0))


def _parameters(
    rows: Variables,
    elements: Variables,
    given: Sequence[str],
    priors: Mapping[str, Distribution],
    targets: FloatArray,
) -> Adapter:
    """Scales of parameters, one after the other, that make the observables most nearly linear in them."""
    chosen, inputs = Adapter(), {name: np.asarray(rows[name], dtype=float) for name in given}
    for name in given:
        candidates = {"raw": (Adapter(), inputs[name])}
        for kind, adapter in _candidates(name, elements[name], priors.get(name)):
            raw = {name: torch.as_tensor(rows[name], dtype=torch.float64)}
            candidates[kind] = adapter, adapter.fitted(raw).forward(raw)[name].numpy()
        scores = {kind: _score(targets, {**inputs, name: values}) for kind, (_, values) in candidates.items()}
        best = max(scores, key=lambda kind: scores[kind])
        adapter, inputs[name] = candidates[best]
        chosen = Adapter((*chosen.transforms, *adapter.transforms))
    return chosen


def _candidates(name: str, values: Array, prior: Distribution | None) -> Iterator[tuple[str, Adapter]]:
    """Steps that take a parameter to the real line, where its support is known or plain to see."""
    if prior is not None:
        bounds = support_bounds(name, prior)
        bounded = Adapter().constrain(name, prior=prior)
        if bounded.transforms:
            yield "bounded", bounded
        positive = bounds is not None and all(low is not None and low >= 0 for low in bounds[0])
    else:  # online, later draws may lie beyond estimated bounds other than 0
        positive = all(low == 0.0 for low in parameter_bounds(values)[0])
    if positive and values.min() > 0:
        yield "log", Adapter().log(name)


def _score(targets: FloatArray, inputs: Mapping[str, FloatArray]) -> float:
    return log_likelihood(targets, regressors(np.concatenate(list(inputs.values()), axis=1)))
