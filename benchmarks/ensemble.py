"""What an ensemble costs and what it gives.

    python benchmarks/ensemble.py cost      CPU seconds to train 5 members over those to train 1, in memory and online
    python benchmarks/ensemble.py score     held-out negative log scores in nats of 5 members on 1 000 simulations of two_moons and slcp

Scores: training on 900 simulations with early stopping by the other 100, which the weights are learned from, too; then the mean over 5 000
new simulations for each member, for their mixture with equal weights and with learned ones. Reference posteriors are not used.
"""

import sys
import time
from statistics import median

import numpy as np

from sbi_models import BasicWorkflow, EnsembleWorkflow
from sbi_models.networks import CouplingFlow, FlowMatching
from sbi_models.simulators.benchmarks import BENCHMARKS

MEMBERS, SEEDS = 5, (1, 2, 3)
ROLES = {"inference_variables": "theta", "inference_conditions": "x", "standardize": "all", "accelerator": "cpu", "progress": False}


def cpu(train):
    """CPU seconds of this process."""
    clock = time.process_time()
    train()
    return time.process_time() - clock


def cost() -> None:
    """Cost of several members against one, everything included; the least of three runs of each."""
    simulator = BENCHMARKS["two_moons"].simulator
    data = simulator.sample(2000, seed=0)
    fits = {
        "fit_offline": {"data": data, "epochs": 6, "batch_size": 64, "validation_data": 200},
        "fit_online": {"epochs": 2, "num_batches_per_epoch": 100, "batch_size": 64, "validation_data": 200},
    }
    for network in (CouplingFlow(), FlowMatching()):
        for method, arguments in fits.items():

            def one(network=network, method=method, arguments=arguments):
                getattr(BasicWorkflow(simulator, inference_network=network, seed=1, **ROLES), method)(**arguments)

            def several(reuse, network=network, method=method, arguments=arguments):
                made = EnsembleWorkflow(simulator, inference_networks=network, ensemble_size=MEMBERS, seed=1, **ROLES)
                getattr(made, method)(data_reuse=reuse, **arguments)

            cpu(one)  # imports
            single = min(cpu(one) for _ in range(3))
            ratios = {reuse: min(cpu(lambda r=reuse: several(r)) for _ in range(3)) / single for reuse in (1.0, 0.0)}
            listed = ", ".join(f"{ratio:.2f} at data_reuse {reuse:.0f}" for reuse, ratio in ratios.items())
            print(f"{type(network).__name__:13} {method:12} 1 member {single:.2f} CPU s; {MEMBERS} members: x {listed}", flush=True)


def score() -> None:
    """Held-out scores of members and mixtures."""
    for name in ("two_moons", "slcp"):
        simulator = BENCHMARKS[name].simulator
        for seed in SEEDS:
            data, test = simulator.sample(1000, seed=seed), simulator.sample(5000, seed=1000 + seed)
            training, held_out = ({k: v[rows] for k, v in data.items()} for rows in (slice(0, 900), slice(900, 1000)))
            made = EnsembleWorkflow(
                simulator, inference_networks="coupling_flow", ensemble_size=MEMBERS, seed=seed, early_stopping=20, **ROLES
            )
            clock = time.process_time()
            history = made.fit_offline(training, epochs=100, batch_size=64, validation_data=held_out)
            seconds = time.process_time() - clock
            members = sorted(-values.mean() for values in made.log_prob(test, merge_members=False).values())
            uniform = -made.log_prob(test)
            weights = made.stack(held_out)
            learned = -made.log_prob(test)
            gain = uniform - learned
            print(
                f"{name:9} seed {seed}: members {' '.join(f'{m:.3f}' for m in members)} (median {median(members):.3f}), mixture "
                f"{uniform.mean():.3f}, learned weights {learned.mean():.3f} (better by {gain.mean():.4f} +- "
                f"{gain.std() / np.sqrt(len(gain)):.4f}): {' '.join(f'{w:.2f}' for w in weights.values())}; best epochs "
                f"{list(history.best_epochs.values())}, {seconds:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    {"cost": cost, "score": score}[sys.argv[1]]()
