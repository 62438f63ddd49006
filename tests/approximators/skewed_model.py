"""A model with a skewed posterior that is a formula, and workflows on it."""

import numpy as np
from scipy.stats import norm

from sbi_models import BasicWorkflow
from sbi_models.networks import ScoringRuleNetwork

S = 0.8
"""sd of log sigma given x."""
LEVELS = (0.1, 0.5, 0.9)
TWO = {"inference_variables": ["sigma", "mu"], "inference_conditions": ["x"]}


def simulations(n, seed):
    """log sigma ~ N(x_1 / 2, S^2) and, apart from it, mu ~ N(10 + x_2, 3^2), given x; x is drawn first, so
    posteriors are formulas."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    sigma = np.exp(x[:, :1] / 2 + S * rng.normal(size=(n, 1)))
    return {"sigma": sigma, "mu": 10 + x[:, 1:] + 3 * rng.normal(size=(n, 1)), "x": x}


def workflow(rules, adapter=None, **arguments):
    settings = (
        {"initial_learning_rate": 3e-3, "seed": 0, "accelerator": "cpu", "progress": False} | TWO | arguments
    )
    return BasicWorkflow(
        inference_network=ScoringRuleNetwork(rules, widths=(32, 32)), adapter=adapter, **settings
    )


TEST = {
    "x": np.stack(np.meshgrid(np.linspace(-1.5, 1.5, 9), np.linspace(-1.5, 1.5, 9)), axis=-1).reshape(-1, 2)
}
SIGMA_SD = np.exp(TEST["x"][:, :1] / 2 + S**2 / 2) * np.sqrt(np.expm1(S**2))
EXACT = {
    "mean": {"sigma": np.exp(TEST["x"][:, :1] / 2 + S**2 / 2), "mu": 10 + TEST["x"][:, 1:]},
    "median": {"sigma": np.exp(TEST["x"][:, :1] / 2), "mu": 10 + TEST["x"][:, 1:]},
    "q": {
        "sigma": np.exp(TEST["x"][:, None, :1] / 2 + S * norm.ppf(LEVELS)[:, None]),
        "mu": 10 + TEST["x"][:, None, 1:] + 3 * norm.ppf(LEVELS)[:, None],
    },
}
