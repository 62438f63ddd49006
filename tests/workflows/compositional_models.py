"""Small compositional workflows on the linear-Gaussian model, and the exact posterior of several items."""

import numpy as np
from linear_gaussian import NOISE, SIMULATOR

from sbi_models import CompositionalWorkflow
from sbi_models.networks import DiffusionModel

SMALL = DiffusionModel(widths=(16, 16), steps=8, density_steps=8)


def compositional(**arguments):
    """A workflow on this model with a small network, a fixed seed and no progress bar."""
    settings = {
        "simulator": SIMULATOR,
        "inference_variables": ["theta"],
        "inference_conditions": ["x"],
        "inference_network": SMALL,
        "initial_learning_rate": 3e-3,
        "seed": 0,
        "accelerator": "cpu",
        "progress": False,
    }
    return CompositionalWorkflow(**(settings | arguments))


def items(num_datasets, n, seed):
    """Conditions x (num_datasets, n, 2), each data set of parameters of its own."""
    theta = np.repeat(SIMULATOR.sample(num_datasets, seed=seed)["theta"], n, axis=0)
    return {
        "x": SIMULATOR.sample(num_datasets * n, seed=seed + 1, theta=theta)["x"].reshape(num_datasets, n, 2)
    }


def exact(x):
    """Means (num_datasets, 2), and the sd, of theta given all items of each data set."""
    precision = 1 + x.shape[1] / NOISE**2
    return x.sum(axis=1) / NOISE**2 / precision, precision**-0.5


def prior_score(data, t=None):
    return {"theta": -data["theta"]}
