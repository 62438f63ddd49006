"""Runge-Kutta method of order 4 with fixed steps, for a batch of ordinary differential equations.

A row's solution depends on nothing but its own parameters. Which step is small enough is a property of each
model and tested there, against scipy's adaptive solver at tight tolerance.
"""

from collections.abc import Callable

import numpy as np

from sbi_models.types import FloatArray


def runge_kutta(
    rate: Callable[[FloatArray], FloatArray], start: FloatArray, times: FloatArray, step: float
) -> FloatArray:
    """The states at `times` of d state / dt = rate(state).

    Args:
        rate: the time derivatives, shape (d, n), for states of shape (d, n).
        start: states at times[0], shape (d, n).
        times: increasing, shape (t,).
        step: the longest step allowed; between two times all steps are equal.

    Returns:
        shape (t, d, n).

    >>> states = runge_kutta(lambda y: -y, np.ones((1, 1)), np.array([0.0, 1.0]), step=0.1)
    >>> float(abs(states[1, 0, 0] - np.exp(-1.0))) < 1e-6
    True
    """
    states = np.empty((len(times), *start.shape))
    states[0] = state = start
    for k, gap in enumerate(np.diff(times), start=1):
        count = int(np.ceil(gap / step - 1e-9))
        h = gap / count
        for _ in range(count):
            first = rate(state)
            second = rate(state + h / 2 * first)
            third = rate(state + h / 2 * second)
            fourth = rate(state + h * third)
            state = state + h / 6 * (first + 2 * (second + third) + fourth)
        states[k] = state
    return states
