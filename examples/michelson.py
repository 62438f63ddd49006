"""The speed of light from Michelson's measurements of 1879, beside the exact posterior.

Shows: a simulator of two functions, a set of measurements as data, one training for all five experiments, the
verdict on fresh simulations, and certificates of the real data. The model has an exact posterior, so the
printed errors are those of the network.

    python examples/michelson.py --output figures

Time on one core: 132 s; with --quick 11 s, which trains too little to be right.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import sbi_models as bf
from sbi_models.simulators.benchmarks import michelson

SEED = 1


def prior(batch_size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Mean speed of the runs, km/s minus 299 000, and the log of their variance: shape (batch_size, 2)."""
    mean = rng.normal(800, 100, size=batch_size)
    log_variance = rng.normal(2 * np.log(100), 1, size=batch_size)
    return {"theta": np.stack([mean, log_variance], axis=1)}


def likelihood(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Twenty runs of one experiment: shape (n, 20, 1)."""
    mean, sd = theta[:, :1], np.exp(theta[:, 1:] / 2)
    return {"x": rng.normal(mean, sd, size=(len(theta), 20))[..., None]}


def main() -> None:
    """Train on simulations, draw for the five experiments of 1879, and compare with quadrature."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()

    simulator = bf.make_simulator([prior, likelihood], is_batched=True)
    workflow = bf.BasicWorkflow(
        simulator,
        inference_variables="theta",
        summary_variables="x",
        inference_network=bf.networks.CouplingFlow(widths=(64, 64)),
        summary_network=bf.networks.DeepSet(widths=(32, 32)),
        standardize="all",
        initial_learning_rate=2e-3,
        seed=SEED,
    )
    number, epochs = (2_000, 2) if options.quick else (50_000, 10)
    workflow.fit_offline(
        simulator.sample(number, seed=SEED), epochs=epochs, batch_size=256, validation_data=1000
    )
    print(workflow.verdict(300, seed=2))

    table = pd.read_csv(michelson.DATA)
    speeds = table["speed"].to_numpy(dtype=float).reshape(5, 20, 1)
    draws = workflow.sample(num_samples=4000, conditions={"x": speeds}, seed=3)["theta"]  # (5, 4000, 2)
    exact = [michelson.MODEL.posterior(x) for x in speeds]

    certificates = workflow.certify({"x": speeds}, seed=4)
    names = []
    print("\nexperiment  mean speed [km/s]   exact              error [exact sds]  certificate")
    for k, (posterior, certificate) in enumerate(zip(exact, certificates, strict=True)):
        mean, sd = draws[k, :, 0].mean() + michelson.SPEED_OFFSET, draws[k, :, 0].std()
        error = (draws[k].mean(axis=0)[0] - posterior.mean[0]) / posterior.sd[0]
        right = f"{posterior.mean[0] + michelson.SPEED_OFFSET:.1f} ± {posterior.sd[0]:4.1f}"
        print(
            f"{k + 1:<11} {mean:.1f} ± {sd:4.1f}    {right}   {error:+.2f}              {certificate.verdict}"
        )
        names.append(f"experiment {k + 1}" + ("" if certificate.trusted else ": certificate failed"))

    grid = np.stack([np.linspace(p.mean[0] - 5 * p.sd[0], p.mean[0] + 5 * p.sd[0], 300) for p in exact])
    density = np.stack([p.mean_density(points) for p, points in zip(exact, grid, strict=True)])
    figure = bf.diagnostics.plot_posterior_reference(
        draws[..., :1] + michelson.SPEED_OFFSET,
        (grid + michelson.SPEED_OFFSET)[:, None],
        density[:, None],
        truth=[michelson.SPEED_TODAY + michelson.SPEED_OFFSET],
        variable_names=["speed of light in air [km/s]"],
        data_set_names=names,
        truth_label="today's value",
    )
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "michelson.png", dpi=100)


if __name__ == "__main__":
    main()
