"""Counts whose rate changes at a number of unknown points, with its exact posterior by enumeration."""

from itertools import combinations, pairwise

import numpy as np
from scipy.special import gammaln, logsumexp

import sbi_models as bf

SIZE, SHAPE, RATE = 8, 1.0, 0.1
"""Number of counts, and the gamma prior of each segment's rate."""


def segments(changes):
    """Ends of the segments between change points."""
    ends = [0, *changes, SIZE]
    return list(pairwise(ends))


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
    rates = np.concatenate([np.full(b - a, rng.gamma(SHAPE, 1 / RATE)) for a, b in segments(changes)])
    return {"x": rng.poisson(rates).astype(float)}


SIMULATOR = bf.make_simulator([prior, observe])


def exact_posterior(x):
    """Probabilities by (number, first): rates integrated out, all sets of change points enumerated."""
    logs = {}
    for number in range(3):
        places = list(combinations(range(1, SIZE), number))
        for changes in places:
            total = -np.log(3.0) - np.log(len(places))
            for a, b in segments(changes):
                s, n = float(x[a:b].sum()), b - a
                total += gammaln(SHAPE + s) - gammaln(SHAPE) - gammaln(x[a:b] + 1).sum()
                total += SHAPE * np.log(RATE) - (SHAPE + s) * np.log(RATE + n)
            logs.setdefault((number, changes[0] if changes else 0), []).append(total)
    cells = {cell: logsumexp(values) for cell, values in logs.items()}
    whole = logsumexp(list(cells.values()))
    return {cell: float(np.exp(value - whole)) for cell, value in cells.items()}


def total_variation(probabilities, exact):
    """Half the sum of absolute differences of two laws by cell."""
    return 0.5 * sum(
        abs(probabilities.get(cell, 0.0) - exact.get(cell, 0.0)) for cell in {*probabilities, *exact}
    )
