"""Every inference network against the exact posterior of the linear-Gaussian model in ten dimensions.

    python benchmarks/linear_gaussian.py [NETWORK ...]

theta ~ Normal(0, 0.1 I), x ~ Normal(theta, 0.1 I). Each network is trained online with its defaults and
scored on 200 fresh data sets:

    mean   rms error of the posterior mean, in exact posterior sds               (asked: at most 0.1)
    sd     ratio of posterior sd and exact sd: smallest and largest of the ten   (asked: 0.9 to 1.1)
    nats   mean of exact minus estimated log density of the true parameters      (asked: at most 0.05 in size)
"""

import sys
import time

import numpy as np
import torch

from sbi_models import BasicWorkflow
from sbi_models.networks import InferenceNetwork, registry
from sbi_models.simulators.benchmarks.gaussian_linear import GaussianLinear

EPOCHS, BATCHES, BATCH_SIZE, LEARNING_RATE = 20, 200, 256, 1e-3
DATA_SETS, DRAWS, SEED = 200, 1000, 1


def score(network: str) -> str:
    """Train one network and print its distance from the exact posterior on one line."""
    model = GaussianLinear()
    workflow = BasicWorkflow(
        model.simulator,
        inference_variables="theta",
        inference_conditions="x",
        inference_network=network,
        standardize="all",
        initial_learning_rate=LEARNING_RATE,
        seed=SEED,
        progress=False,
    )
    clock = time.process_time()
    workflow.fit_online(epochs=EPOCHS, num_batches_per_epoch=BATCHES, batch_size=BATCH_SIZE)
    trained = time.process_time() - clock
    test = model.simulator.sample(DATA_SETS, seed=99)
    posteriors = [model.posterior(x) for x in test["x"]]
    mean, sd = (np.array([getattr(posterior, name) for posterior in posteriors]) for name in ("mean", "sd"))
    clock = time.process_time()
    draws = workflow.sample(num_samples=DRAWS, conditions=test, seed=2)["theta"]
    sampled = time.process_time() - clock
    # the scatter of a mean of DRAWS draws is part of neither network nor error
    error = np.sqrt(max(0.0, float(np.mean(((draws.mean(axis=1) - mean) / sd) ** 2)) - 1 / DRAWS))
    ratio = np.sqrt((draws.var(axis=1) / sd**2).mean(axis=0))
    nats = "     -"
    if workflow.approximator.inference_network.has_density:
        exact = np.array(
            [
                float(posterior.log_prob(theta))
                for posterior, theta in zip(posteriors, test["theta"], strict=True)
            ]
        )
        nats = f"{np.mean(exact - workflow.log_prob(test)):6.3f}"
    spread = f"{ratio.min():.3f} {ratio.max():.3f}"
    return (
        f"{network:20} mean {error:.3f}  sd {spread}  nats {nats}  CPU s: train {trained:.0f}, sample "
        f"{sampled:.1f}"
    )


def main() -> None:
    """Score the named networks, or all that have draws."""
    torch.set_num_threads(1)
    known = [
        name
        for name, cls in registry.NETWORKS.items()
        if issubclass(cls, InferenceNetwork) and cls.has_draws is True
    ]
    for name in sys.argv[1:] or known:
        print(score(name), flush=True)


if __name__ == "__main__":
    main()
