"""A model whose posterior is a formula: theta ~ N(0, I) in two dimensions, x = theta + noise of sd 1/2."""

import numpy as np

from sbi_models import BasicWorkflow, EnsembleWorkflow, make_simulator
from sbi_models.networks import FlowMatching

NOISE = 0.5
SD = NOISE / np.sqrt(1 + NOISE**2)
"""Posterior sd of each parameter."""


def prior(batch_size, rng):
    return {"theta": rng.normal(size=(batch_size, 2))}


def likelihood(theta, rng):
    return {"x": theta + NOISE * rng.normal(size=theta.shape)}


SIMULATOR = make_simulator([prior, likelihood], is_batched=True)


def exact_mean(x):
    return x / (1 + NOISE**2)


def exact_log_prob(data):
    return np.sum(
        -(((data["theta"] - exact_mean(data["x"])) / SD) ** 2) / 2 - np.log(SD * np.sqrt(2 * np.pi)), axis=1
    )


def workflow(widths=(16, 16), **arguments):
    """A workflow on this model with a small network, a fixed seed and no progress bar."""
    settings = {
        "simulator": SIMULATOR,
        "inference_variables": ["theta"],
        "inference_conditions": ["x"],
        "inference_network": FlowMatching(widths=widths, steps=8),
        "initial_learning_rate": 3e-3,
        "seed": 0,
        "accelerator": "cpu",
        "progress": False,
    }
    return BasicWorkflow(**(settings | arguments))


def ensemble(**arguments):
    """Two such networks in an ensemble, the same settings."""
    settings = {
        "simulator": SIMULATOR,
        "inference_variables": ["theta"],
        "inference_conditions": ["x"],
        "inference_networks": FlowMatching(widths=(16, 16), steps=4),
        "ensemble_size": 2,
        "initial_learning_rate": 3e-3,
        "seed": 0,
        "accelerator": "cpu",
        "progress": False,
    }
    return EnsembleWorkflow(**(settings | arguments))


def log_likelihood(theta, x):
    """log p(x | theta), theta and x (n, 2)."""
    return -0.5 * (((x - theta) / NOISE) ** 2).sum(axis=1) - 2 * np.log(NOISE * np.sqrt(2 * np.pi))


def log_prior(theta):
    """log p(theta), theta (n, 2)."""
    return -0.5 * (theta**2).sum(axis=1) - np.log(2 * np.pi)
