"""Cost and benefit of ensembles.

    python benchmarks/ensemble.py cost      CPU seconds to train 5 members, side by side and batched, over
                                            those to train 1
    python benchmarks/ensemble.py batched   the same per step, for more networks and batch sizes; in wall
                                            seconds on a GPU
    python benchmarks/ensemble.py score     held-out negative log scores in nats of 5 members on 1 000
                                            simulations of two_moons and slcp

Scores: training on 900 simulations with early stopping by the other 100, which the weights are learned from,
too; then the mean over 5 000 new simulations for each member, for their mixture with equal weights and with
learned ones. Reference posteriors are not used.
"""

import sys
import time
from itertools import product
from statistics import median

import numpy as np
import torch

from sbi_models import BasicWorkflow, EnsembleWorkflow
from sbi_models.networks import CouplingFlow, DeepSet, DiffusionModel, FlowMatching, TimeSeriesTransformer
from sbi_models.simulators.benchmarks import BENCHMARKS

MEMBERS, SEEDS = 5, (1, 2, 3)
ROLES = {
    "inference_variables": "theta",
    "inference_conditions": "x",
    "standardize": "all",
    "accelerator": "cpu",
    "progress": False,
}


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
                getattr(BasicWorkflow(simulator, inference_network=network, seed=1, **ROLES), method)(
                    **arguments
                )

            def several(reuse, batched, network=network, method=method, arguments=arguments):
                made = EnsembleWorkflow(
                    simulator,
                    inference_networks=network,
                    ensemble_size=MEMBERS,
                    batched=batched,
                    seed=1,
                    **ROLES,
                )
                getattr(made, method)(data_reuse=reuse, **arguments)

            cpu(one)  # imports
            single = min(cpu(one) for _ in range(3))
            listed = []
            for reuse in (1.0, 0.0):
                side, batch = (
                    min(cpu(lambda r=reuse, b=b: several(r, b)) for _ in range(3)) / single
                    for b in (False, True)
                )
                listed.append(f"{side:.2f} side by side and {batch:.2f} batched at data_reuse {reuse:.0f}")
            print(
                f"{type(network).__name__:13} {method:12} 1 member {single:.2f} CPU s; {MEMBERS} "
                f"members: x {', '.join(listed)}",
                flush=True,
            )


def wall(train):
    """Wall seconds, used on a GPU."""
    clock = time.perf_counter()
    train()
    return time.perf_counter() - clock


def batched() -> None:
    """Seconds per step of 5 members over those of 1, side by side and batched; the least of two runs.

    Start-up and data are excluded.
    """
    measure, unit = (wall, "s") if torch.cuda.is_available() else (cpu, "CPU s")
    networks = {
        "flow_matching": FlowMatching(),
        "diffusion_model": DiffusionModel(),
        "affine": CouplingFlow(transform="affine"),
    }
    networks["spline"] = CouplingFlow()
    summaries = {"none": None, "deep_set": DeepSet(), "time_series_transformer": TimeSeriesTransformer()}
    few, many = 4, 44
    for (name, network), (summary, summary_network), size in product(
        networks.items(), summaries.items(), (64, 256)
    ):
        rng = np.random.default_rng(0)
        theta = rng.normal(size=(many * size, 2))
        data = {"theta": theta, "x": theta[:, None, :] + rng.normal(size=(many * size, 20, 2))}
        data["x"] = data["x"].mean(axis=1) if summary_network is None else data["x"]
        roles = {
            "inference_variables": "theta",
            ("inference_conditions" if summary_network is None else "summary_variables"): "x",
        }

        def per_step(cls, data=data, size=size, **arguments):
            def train(steps):
                rows = {key: value[: steps * size] for key, value in data.items()}
                cls(seed=1, progress=False, **arguments).fit_offline(rows, epochs=1, batch_size=size)

            times = [min(measure(lambda n=n: train(n)) for _ in range(2)) for n in (few, many)]
            return (times[1] - times[0]) / (many - few)

        one = per_step(BasicWorkflow, inference_network=network, summary_network=summary_network, **roles)
        members = {
            "inference_networks": network,
            "summary_networks": summary_network,
            "ensemble_size": MEMBERS,
        } | roles
        side, batch = (per_step(EnsembleWorkflow, batched=b, **members) for b in (False, True))
        print(
            f"{name:16} {summary:24} batch {size:3}: 1 member {1e3 * one:.1f} m{unit} a step; {MEMBERS} "
            f"members x {side / one:.2f} side by side, {batch / one:.2f} batched; side by side over batched "
            f"{side / batch:.2f}",
            flush=True,
        )


def score() -> None:
    """Held-out scores of members and mixtures."""
    for name in ("two_moons", "slcp"):
        simulator = BENCHMARKS[name].simulator
        for seed in SEEDS:
            data, test = simulator.sample(1000, seed=seed), simulator.sample(5000, seed=1000 + seed)
            training, held_out = (
                {k: v[rows] for k, v in data.items()} for rows in (slice(0, 900), slice(900, 1000))
            )
            made = EnsembleWorkflow(
                simulator,
                inference_networks="coupling_flow",
                ensemble_size=MEMBERS,
                seed=seed,
                early_stopping=20,
                **ROLES,
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
                f"{name:9} seed {seed}: members {' '.join(f'{m:.3f}' for m in members)} (median "
                f"{median(members):.3f}), mixture {uniform.mean():.3f}, learned weights "
                f"{learned.mean():.3f} (better by {gain.mean():.4f} +- "
                f"{gain.std() / np.sqrt(len(gain)):.4f}): {' '.join(f'{w:.2f}' for w in weights.values())}; "
                f"best epochs {list(history.best_epochs.values())}, {seconds:.0f} CPU s",
                flush=True,
            )


if __name__ == "__main__":
    {"cost": cost, "batched": batched, "score": score}[sys.argv[1]]()
