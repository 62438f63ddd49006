"""Small approximators with random weights, and data for them."""

import torch

from sbi_models import seeding
from sbi_models.adapters import default_adapter
from sbi_models.approximators import ContinuousApproximator
from sbi_models.networks import DeepSet, FlowMatching

ROLES = {"inference_variables": ["theta", "tau"], "inference_conditions": ["c"], "summary_variables": ["x"]}


def data(n=40, seed=0):
    """theta (n, 2), tau (n,), c (n, 3) and x (n, 6, 1), far from standard; z is in no role."""
    rng = seeding.generator(seed, "test data")
    theta, tau = 100 + 5 * rng.normal(size=(n, 2)), 1e-3 * rng.normal(size=n)
    return {
        "theta": theta,
        "tau": tau,
        "c": 3 + rng.normal(size=(n, 3)),
        "x": rng.normal(size=(n, 6, 1)),
        "z": rng.normal(size=n),
    }


def approximator(*, built=True, random_weights=True, steps=4, **arguments):
    """An approximator of theta and tau given c and the set x."""
    made = ContinuousApproximator(
        adapter=default_adapter(ROLES),
        roles=ROLES,
        inference_network=FlowMatching(widths=(16, 16), steps=steps),
        summary_network=DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)),
        **arguments,
    )
    if built:
        made.build(data(), seed=0)
    if built and random_weights:
        generator = torch.Generator().manual_seed(0)
        for parameter in made.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return made.eval()
