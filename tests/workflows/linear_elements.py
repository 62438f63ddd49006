"""A linear Gaussian model of elements with two observables, and learned likelihoods of it, for tests."""

import numpy as np
import torch
from torch.distributions import MultivariateNormal, Normal

import sbi_models as bf

NOISE = 0.8


def observe(mu, shift, rng):
    return {
        "x": np.stack([mu[:, 0] + shift[:, 0], mu[:, 1] - shift[:, 0]], axis=1)
        + NOISE * rng.normal(size=mu.shape)
    }


PRIORS = {"mu": MultivariateNormal(torch.zeros(2), torch.eye(2)), "shift": Normal(0.5, 0.5).expand((1,))}
SIMULATOR = bf.make_simulator([PRIORS, observe], is_batched=True)
DESIGN = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])


def linear(components=1, **arguments):
    return bf.networks.AutoregressiveMixture(
        components, trunk_width=0, head_width=8, head_blocks=0, **arguments
    )


def workflow(**arguments):
    settings = {
        "simulator": SIMULATOR,
        "parameters": ["mu", "shift"],
        "observables": "x",
        "iid": "elements",
        "network": linear(),
        "initial_learning_rate": 1e-7,
        "seed": 1,
        "progress": False,
    }
    return bf.LikelihoodWorkflow(**(settings | arguments))


def fitted():
    """A workflow that has the exact likelihood, nearly, from its start by least squares."""
    made = workflow()
    made.fit_offline(SIMULATOR.sample(100_000, seed=1), epochs=1, batch_size=50_000)
    return made


def exact_posterior(x, mean=(0.0, 0.0, 0.5), sd=(1.0, 1.0, 0.5)):
    """Mean and covariance of (mu_1, mu_2, shift) given elements (N, 2), prior N(mean, diag sd^2)."""
    precision = np.diag(1 / np.square(sd)) + len(x) * DESIGN.T @ DESIGN / NOISE**2
    covariance = np.linalg.inv(precision)
    return covariance @ (np.asarray(mean) / np.square(sd) + DESIGN.T @ x.sum(axis=0) / NOISE**2), covariance


def joined(draws):
    return np.concatenate([draws["mu"], draws["shift"]], axis=-1)


def elements(numbers, seed=0):
    rng = np.random.default_rng(seed)
    return [DESIGN @ [0.7, -0.4, 0.8] + NOISE * rng.normal(size=(number, 2)) for number in numbers]
