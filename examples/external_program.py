"""A slow external program that sometimes crashes as a simulator: nothing is simulated twice.

Shows: a likelihood that runs a program for each simulation and reads what it prints; `FailurePolicy`, which
draws what crashed again; `workers=`, which runs several programs side by side; and the sharded store, where
finished simulations stay, so that the call that asks for more runs only the missing ones. The program
simulates molecules that are made and decay, event by event; since this process happens to have a likelihood
that can be summed, the posterior is compared with the exact one.

    python examples/external_program.py --output figures

Time on one core: 125 s; with --quick 17 s, which simulates too little to be right.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import binom, poisson
from torch.distributions import Uniform

import sbi_models as bf
from sbi_models.datasets import SimulationStore

SEED, TIMES, LOW, HIGH = 1, np.arange(1, 9), np.array([5.0, 0.2]), np.array([30.0, 1.5])

PROGRAM = """
import random, sys
birth, death, seed = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
if random.random() < 0.03:
    sys.exit("cannot reach the licence server")          # one run in thirty crashes
time, molecules, due = 0.0, 0, 1
while due <= 8:
    rate = birth + death * molecules
    time += random.expovariate(rate)
    while due <= 8 and time > due:
        print(molecules)                                 # molecules at times 1 to 8
        due += 1
    molecules += 1 if random.random() * rate < birth else -1
"""


class Program:
    """Likelihood by one run of the program, picklable for workers."""

    __name__ = "program"

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        command = [sys.executable, "-I", "-S", str(self.path), *map(str, theta), str(rng.integers(2**31))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return {"x": np.array(done.stdout.split(), dtype=float)}


def prior(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Molecules made in a unit of time, and the rate at which each decays."""
    return {"theta": rng.uniform(LOW, HIGH)}


def exact_posterior(x: np.ndarray, births: np.ndarray, deaths: np.ndarray) -> np.ndarray:
    """Exact posterior density on a grid, shape (births, deaths).

    Of the molecules at one time, a binomial number is left at the next, and new ones are added.
    """
    log_density, before = np.zeros((len(births), len(deaths))), 0
    for now in x.astype(int):
        left = np.arange(min(before, now) + 1)
        survive = binom.pmf(left, before, np.exp(-deaths)[:, None])  # (deaths, left)
        fresh = poisson.pmf(
            now - left, (births[:, None] * -np.expm1(-deaths) / deaths)[..., None]
        )  # (births, deaths, left)
        log_density, before = log_density + np.log((fresh * survive).sum(axis=-1)), now
    density = np.exp(log_density - log_density.max())
    return density / (density.sum() * (births[1] - births[0]) * (deaths[1] - deaths[0]))


def main() -> None:
    """Simulate into a store in two steps, train on it, and compare with the exact posterior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()
    number = 100 if options.quick else 2_000

    with TemporaryDirectory() as scratch:  # a folder of yours, to keep the simulations
        path = Path(scratch) / "molecules.py"
        path.write_text(PROGRAM)
        policy = bf.simulators.FailurePolicy(retries=5)
        simulator = bf.make_simulator([prior, Program(path)], failures=policy)
        runs = []

        def rows(start: int, stop: int) -> dict[str, np.ndarray]:
            made = simulator.rows(start, stop, seed=SEED, workers=2, progress=False)
            report = simulator.last_report
            runs[-1] += (
                stop - start + sum(failure.attempts for failure in report.failures)
            )  # these are in the log, too
            return made

        for wanted in (number, 2 * number, 2 * number):
            print(f"asked for {wanted} simulations")
            runs.append(0)
            origin = {
                "seed": SEED,
                "fingerprint": "molecules 1",
            }  # another program or prior: another fingerprint
            store = SimulationStore.create(
                Path(scratch) / "store", rows, wanted, rows_per_shard=number // 2, **origin
            )
            print(f"  {runs[-1]} runs of the program")
        data = store.load()
        observed = simulator.sample(1, seed=2, theta=np.array([15.0, 0.6]))["x"]

    workflow = bf.BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        inference_network="autoregressive_mixture",
        prior={
            "theta": Uniform(*torch.tensor(np.stack([LOW, HIGH])))
        },  # so that no draw is out of its support
        standardize="all",
        early_stopping=10,
        seed=SEED,
    )
    held_out = number // 5
    training, validation = (
        {name: value[part] for name, value in data.items()}
        for part in (slice(held_out, None), slice(held_out))
    )
    workflow.fit_offline(
        training, epochs=10 if options.quick else 100, batch_size=64, validation_data=validation
    )
    draws = workflow.sample(num_samples=4000, conditions={"x": observed}, seed=3)["theta"][0]

    births, deaths = (np.linspace(low, high, 121) for low, high in zip(LOW, HIGH, strict=True))
    exact = exact_posterior(observed[0], births, deaths)
    shares = [exact.sum(axis=1) / exact.sum(), exact.sum(axis=0) / exact.sum()]
    for k, (name, grid) in enumerate((("birth rate", births), ("death rate", deaths))):
        mean = shares[k] @ grid
        print(
            f"{name}: {draws[:, k].mean():.2f} ± {draws[:, k].std():.2f}, exact {mean:.2f} ± "
            f"{np.sqrt(shares[k] @ (grid - mean) ** 2):.2f}"
        )

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    asked = zip(("first", "second", "third"), (number, 2 * number, 2 * number), strict=True)
    left.bar([f"{name} call:\n{wanted:,}" for name, wanted in asked], runs, color="#0072B2", width=0.6)
    left.set(
        xlabel="simulations asked for",
        ylabel="runs of the program",
        title="What is in the store is not simulated again",
    )
    right.plot(*draws[:1500].T, ".", color="#0072B2", markersize=2.5, alpha=0.5, label="draws of the network")
    sizes = np.sort(exact.ravel())[::-1]
    levels = [sizes[np.searchsorted(np.cumsum(sizes) / sizes.sum(), share)] for share in (0.95, 0.5)]
    right.contour(births, deaths, exact.T, levels, colors="#D55E00", linewidths=1.5)
    right.plot([], [], color="#D55E00", label="exact, 50 % and 95 %")
    right.plot(15.0, 0.6, "+", color="#222222", markersize=12, markeredgewidth=2, label="true value")
    right.set(xlabel="birth rate", ylabel="death rate", title=f"A network trained on {2 * number:,} runs")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "external_program.png", dpi=100)


if __name__ == "__main__":
    main()
