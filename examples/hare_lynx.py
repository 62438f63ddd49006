"""Hares and lynxes: eight parameters of a predator-prey model, beside Hamiltonian Monte Carlo.

Shows: one observation under a wide prior. `inference_network="auto"` chooses scales and training, `narrow`
puts a second round of simulations near the observation, and `importance_sample` weights the draws by the
likelihood. The reference are 2000 draws of posteriordb. It is the experiment hare-lynx of the package with a
seventh of its simulations, which is too few, as the report of the weights says.

    python examples/hare_lynx.py --output figures

Time on one core: 164 s; with --quick 31 s, which trains too little to be right.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import sbi_models as bf
from sbi_models.simulators.benchmarks import HareLynx

SEED = 1
MODEL = HareLynx()  # its docstring has the equations: Lotka and Volterra, log-normal noise, a broad prior


def likelihood(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """21 years of two animals as one row of 42 numbers, thousands of pelts: shape (n, 42)."""
    return {"pelts": MODEL.likelihood(theta, rng)["x"].reshape(len(theta), -1)}


def log_likelihood(theta: np.ndarray, pelts: np.ndarray) -> np.ndarray:
    """log p(pelts | theta) in nats, shape (n,)."""
    with np.errstate(over="ignore"):  # a noise of nearly none makes it -inf
        return MODEL.log_likelihood(theta, pelts.reshape(len(pelts), *MODEL.x_shape))


def fitted(simulator: bf.Simulator, number: int, seed: int) -> bf.BasicWorkflow:
    """Workflow trained on simulations."""
    workflow = bf.BasicWorkflow(
        simulator,
        inference_variables="theta",
        inference_conditions="pelts",
        inference_network="auto",
        seed=seed,
    )
    workflow.fit_offline(simulator.sample(number, seed=seed))
    return workflow


def main() -> None:
    """Rounds of simulation, weighted draws, and the comparison with the reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()
    numbers = (120, 120) if options.quick else (6_000, 14_000)
    pelts = {"pelts": MODEL.observed.reshape(1, -1)}

    wide = bf.make_simulator([MODEL.prior, likelihood], is_batched=True)
    workflow, rounds = fitted(wide, numbers[0], SEED), {}
    for k, number in enumerate(numbers[1:], start=1):
        rounds[f"round {k}"] = workflow.sample(num_samples=2000, conditions=pelts, seed=k)["theta"][0]
        near = bf.workflows.sequential_proposal(
            wide, workflow.approximator, pelts, seed=k
        )  # its prior: three times as wide as that posterior
        workflow = fitted(near, number, SEED + k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bf.errors.TrustWarning)  # what the report says is printed below
        weighted, (report,) = workflow.importance_sample(
            num_samples=2000,
            num_proposals=2_000 if options.quick else 50_000,
            conditions=pelts,
            log_likelihood=log_likelihood,
            log_prior=MODEL.log_prior,
            seed=3,
        )
    worth = f"{report.effective_draws:.0f} exact ones, Pareto k {report.pareto_k:.2f}"
    print(f"{report.num_proposals} draws of the last round are worth {worth}")
    for warning in report.warnings:
        print(warning)
    rounds[f"round {len(numbers)}, weighted"] = weighted["theta"][0]
    reference = MODEL.reference_draws
    print("parameter  reference        " + "".join(f"{name:<22}" for name in rounds))
    for k, name in enumerate(MODEL.names):
        cells = [
            f"{draws[:, k].mean():8.3f} ± {draws[:, k].std():<9.3f}"
            for draws in (reference, *rounds.values())
        ]
        print(f"{name:<10} " + "  ".join(cells))

    years, rng = np.arange(1900, 1921), np.random.default_rng(SEED)
    predicted = MODEL.likelihood(weighted["theta"][0], rng)["x"]
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for k, (animal, color) in enumerate((("hare", "#0072B2"), ("lynx", "#D55E00"))):
        left.fill_between(
            years, *np.quantile(predicted[..., k], [0.05, 0.95], axis=0), color=color, alpha=0.2
        )
        left.plot(
            years, np.median(predicted[..., k], axis=0), color=color, label=f"{animal}: predicted, 90 %"
        )
        left.plot(
            years, MODEL.observed[:, k], "o", color=color, markersize=4, label=f"{animal}: pelts bought"
        )
    left.set(xlabel="year", ylabel="pelts [thousands]", xticks=[1900, 1905, 1910, 1915, 1920])
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    left.set_ylim(0, 1.25 * np.quantile(predicted, 0.999))
    mean, sd = reference.mean(axis=0), reference.std(axis=0)
    for place, (name, color) in enumerate(zip(rounds, ("#E69F00", "#0072B2"), strict=True)):
        standard = (rounds[name] - mean) / sd
        rows = np.arange(8) + 0.22 * (place - (len(rounds) - 1) / 2)
        right.errorbar(
            standard.mean(axis=0),
            rows,
            xerr=standard.std(axis=0),
            fmt="o",
            color=color,
            markersize=4,
            label=name,
        )
    right.axvspan(-1, 1, color="#8A8A8A", alpha=0.2, label="reference ± sd")
    right.set(
        xlabel="posterior mean ± sd, in reference sds",
        yticks=range(8),
        yticklabels=MODEL.names,
        xlim=(-5, 10),
    )
    right.invert_yaxis()
    right.legend(frameon=False, fontsize=8, loc="center right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "hare_lynx.png", dpi=100)


if __name__ == "__main__":
    main()
