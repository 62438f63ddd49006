"""Influenza at a boarding school, 1978: infection and recovery rates beside the exact posterior.

Shows: a benchmark as simulator, bounds on parameters, counts on a scale that networks like, and importance
weights, which correct what the network has wrong where the likelihood can be computed. The exact posterior is
a sum over a grid of three parameters.

    python examples/influenza.py --output figures

Time on one core: 45 s; with --quick 11 s, which trains too little to be right.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import sbi_models as bf
from sbi_models.simulators.benchmarks import Influenza

SEED = 1
MODEL = (
    Influenza()
)  # its docstring has the equations: SIR with 763 boys, counts with a negative binomial scatter


def exact_draws(box: np.ndarray, cells: int, num_samples: int) -> np.ndarray:
    """Draws of the exact posterior, shape (num_samples, 3), from a grid over a box of shape (3, 2).

    Draws are uniform within cells.
    """
    step = (box[:, 1] - box[:, 0]) / cells
    axes = [low + width * (np.arange(cells) + 0.5) for low, width in zip(box[:, 0], step, strict=True)]
    theta = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    log_density = MODEL.log_joint(theta, MODEL.observed)
    share = np.exp(log_density - log_density.max())
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(len(theta), num_samples, p=share / share.sum())
    return theta[chosen] + step * rng.uniform(-0.5, 0.5, size=(num_samples, 3))


def main() -> None:
    """Train on simulated epidemics, draw for the school, correct the draws, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()

    workflow = bf.BasicWorkflow(
        MODEL.simulator,
        inference_variables="theta",
        inference_conditions="x",
        inference_network=bf.networks.AutoregressiveMixture(),
        adapter=bf.Adapter()
        .constrain("theta", lower=0)
        .shift("x", by=1)
        .log("x")
        .rename("theta", to="inference_variables")
        .rename("x", to="inference_conditions"),
        standardize="all",
        early_stopping=5,
        seed=SEED,
    )
    number, epochs = (2_000, 5) if options.quick else (20_000, 20)
    workflow.fit_offline(
        MODEL.simulator.sample(number, seed=SEED), epochs=epochs, batch_size=256, validation_data=2000
    )

    school = {"x": MODEL.observed[None]}
    network = workflow.sample(num_samples=4000, conditions=school, seed=2)["theta"][0]
    corrected, reports = workflow.importance_sample(
        num_samples=4000, num_proposals=20_000, conditions=school, seed=2
    )
    corrected = corrected["theta"][0]
    low, high = np.quantile(corrected, [0.002, 0.998], axis=0)
    box = np.stack([np.maximum(low - 0.4 * (high - low), 0), high + 0.4 * (high - low)], axis=1)
    exact = exact_draws(box, 20 if options.quick else 40, 4000)

    report = reports[0]
    print(
        f"20 000 draws of the network are worth {report.effective_draws:.0f} exact ones (Pareto k "
        f"{report.pareto_k:.2f})"
    )
    kinds = {"network": network, "network, corrected": corrected, "exact": exact}
    for name, draws in kinds.items():
        quantities = {"beta": draws[:, 0], "gamma": draws[:, 1], "R0": draws[:, 0] / draws[:, 1]}
        print(
            f"{name:<19}",
            ", ".join(f"{key} {value.mean():.2f} ± {value.std():.2f}" for key, value in quantities.items()),
        )

    days, rng = np.arange(1, 15), np.random.default_rng(SEED)
    predicted = MODEL.likelihood(corrected, rng)["x"]
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.fill_between(
        days,
        *np.quantile(predicted, [0.025, 0.975], axis=0),
        color="#0072B2",
        alpha=0.25,
        label="predicted, 95 %",
    )
    left.plot(days, np.median(predicted, axis=0), color="#0072B2", label="predicted, median")
    left.plot(days, MODEL.observed, "o", color="#222222", markersize=4, label="observed")
    left.set(xlabel="day", ylabel="boys in bed", xticks=range(2, 15, 2))
    for axes, column, label in (
        (middle, None, "R0 = infection / recovery rate"),
        (right, 1, "recovery rate γ [1/day]"),
    ):
        values = {
            name: draws[:, 0] / draws[:, 1] if column is None else draws[:, column]
            for name, draws in kinds.items()
        }
        edges = np.linspace(*np.quantile(values["exact"], [0.001, 0.999]), 40)
        axes.hist(values["exact"], edges, density=True, color="#8A8A8A", alpha=0.4, label="exact")
        axes.hist(
            values["network"],
            edges,
            density=True,
            histtype="step",
            color="#E69F00",
            linewidth=1.5,
            label="network",
        )
        axes.hist(
            values["network, corrected"],
            edges,
            density=True,
            histtype="step",
            color="#0072B2",
            linewidth=1.5,
            label="corrected",
        )
        axes.set(xlabel=label, yticks=[])
    middle.set_ylabel("posterior density")
    for axes in (left, middle):
        axes.legend(frameon=False, fontsize=8)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "influenza.png", dpi=100)


if __name__ == "__main__":
    main()
