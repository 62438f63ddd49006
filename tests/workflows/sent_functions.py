"""Functions that are sent to other processes: in a file without PyTorch, so that those need not import it."""

import numpy as np

from sbi_models import make_simulator, seeding


def prior():
    return {"theta": np.random.normal(size=2)}


def likelihood(theta):
    return {"x": np.random.normal(theta, 0.5, size=(20, 2))}


def meta():
    return {"scale": np.random.uniform(0.4, 0.6)}


def scaled(theta, scale):
    return {"x": np.random.normal(theta, scale, size=(20, 2))}


LATE = tuple(make_simulator(prior).rows(1300, 1301, seed=seeding.derive(0, "online simulations"))["theta"][0])
"""What the prior gives in row 1300 of a training with seed 0."""


def fails_late(theta):
    if tuple(theta) == LATE:
        raise ArithmeticError("too stiff")
    return {"x": theta}
