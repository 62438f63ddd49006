"""Counts that switch between two rates at unknown points, with the exact posterior by enumeration."""

from itertools import combinations, pairwise

import numpy as np
from scipy.special import logsumexp
from scipy.stats import poisson

import sbi_models as bf

SIZE, LEVELS = 8, (2.0, 7.0)
"""Number of counts, and the rates, of which the first comes first."""


def rates(changes):
    """Rate of each count between change points."""
    ends = [0, *changes, SIZE]
    return np.concatenate([np.full(b - a, LEVELS[k % 2]) for k, (a, b) in enumerate(pairwise(ends))])


def prior(rng):
    """None, one or two change points with equal probability, each set of places alike; `first` is that of the
    first one, 0 for none."""
    number = int(rng.integers(0, 3))
    changes = sorted(rng.choice(np.arange(1, SIZE), size=number, replace=False))
    second = changes[1] if number == 2 else 0
    return {"number": float(number), "first": float(changes[0]) if number else 0.0, "second": float(second)}


def observe(number, first, second, rng):
    changes = [int(place) for place in (first, second) if place > 0]
    assert len(changes) == int(number)
    return {"x": rng.poisson(rates(changes)).astype(float)}


SIMULATOR = bf.make_simulator([prior, observe])


def exact_posterior(x):
    """Probabilities by (number, first), over all sets of change points."""
    logs = {}
    for number in range(3):
        places = list(combinations(range(1, SIZE), number))
        for changes in places:
            total = poisson.logpmf(x, rates(changes)).sum() - np.log(3.0) - np.log(len(places))
            logs.setdefault((number, changes[0] if changes else 0), []).append(total)
    cells = {cell: logsumexp(values) for cell, values in logs.items()}
    whole = logsumexp(list(cells.values()))
    return {cell: float(np.exp(value - whole)) for cell, value in cells.items()}


def total_variation(probabilities, exact):
    """Half the sum of absolute differences of two laws by cell."""
    return 0.5 * sum(
        abs(probabilities.get(cell, 0.0) - exact.get(cell, 0.0)) for cell in {*probabilities, *exact}
    )
