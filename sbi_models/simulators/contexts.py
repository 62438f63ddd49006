"""Contexts of observations: what `meta_fn` of a simulator would have given, as far as data show it."""

from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_models.ragged import is_ragged, lengths
from sbi_models.types import Array, Variables

if TYPE_CHECKING:
    from sbi_models.simulators.simulator import Simulator

_BLOCKS = 8
"""Contexts that are simulated to see which of them is a number of elements."""


def known_contexts(simulator: "Simulator", data: Variables) -> Variables:
    """Outputs of `meta_fn` that data sets show: name to (n, ...), raw space; empty without `meta_fn`.

    A context is known if it is among the variables of the data, or if it is the number of elements of one of
    them in simulations of several contexts.

    Args:
        simulator: simulator of the data.
        data: raw variables (n, ...).

    >>> from sbi_models.simulators import make_simulator
    >>> def likelihood(size, rng): return {"x": rng.normal(size=(size, 1))}
    >>> simulator = make_simulator([likelihood], meta_fn=lambda rng: {"size": rng.integers(2, 9)})
    >>> known_contexts(simulator, {"x": np.zeros((2, 5, 1))})
    {'size': array([5, 5])}
    """
    if simulator.meta is None:
        return {}
    some = several_rows(simulator)
    known: Variables = {}
    for name in simulator.context_names:
        if name in data:
            known[name] = _of_type(data[name], some[name].dtype)
        elif (of := _counted(some[name], some, data)) is not None:
            known[name] = lengths(data[of])
    return known


@lru_cache(maxsize=4)  # simulators may hold large arrays
def several_rows(simulator: "Simulator") -> Variables:
    """The first eight blocks of the table of seed 0, which show whether data sets differ in length.

    Rows that fail for good hold NaN, however many may fail.
    """
    lenient = copy(simulator)
    if simulator.failures.allowed:
        lenient.failures = replace(simulator.failures, allowed=1.0)
    return lenient.rows(0, _BLOCKS * simulator.block_size, seed=0, progress=False)


def _of_type(values: Array, dtype: "np.dtype[Any]") -> Array:
    """Values of a context as whole numbers where the simulator has such, if they are."""
    if dtype.kind in "iub" and not is_ragged(values) and np.array_equal(values, np.round(values)):
        return values.astype(dtype)
    return values


def _counted(values: Array, some: Variables, data: Variables) -> str | None:
    """The variable whose number of elements a context is in all simulations, which differ in it."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] != 1 or len(np.unique(flat)) < 2:
        return None
    return next((name for name in data if np.array_equal(lengths(some[name]), flat[:, 0])), None)
