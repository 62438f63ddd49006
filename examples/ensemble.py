"""Three approximators of two kinds: their mixture, its weights, and where they disagree.

Shows: `EnsembleWorkflow` trains two coupling flows and a flow matching network side by side, `stack` learns
the weights of their mixture from held-out simulations, and `disagreement` tells an observation that no
simulation was like. The exact posterior is known.

    python examples/ensemble.py --output figures

Time on one core: 77 s; with --quick 15 s, which trains too little to be right.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import sbi_models as bf
from sbi_models.simulators.benchmarks import NormalModel

SEED = 1
MODEL = NormalModel()  # mean and log variance of twenty normals; the exact posterior is known by quadrature


def main() -> None:
    """Train, stack, and look at two observations: a usual one and one with a mean far beyond the prior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()

    workflow = bf.EnsembleWorkflow(
        MODEL.simulator,
        inference_variables="theta",
        summary_variables="x",
        inference_networks={
            "spline": bf.networks.CouplingFlow(widths=(64, 64)),
            "affine": bf.networks.CouplingFlow(transform="affine", widths=(64, 64)),
            "flow": bf.networks.FlowMatching(widths=(64, 64, 64), steps=12),
        },
        summary_networks=bf.networks.DeepSet(widths=(32, 32)),
        standardize="all",
        initial_learning_rate=2e-3,
        seed=SEED,
    )
    number, epochs = (2_000, 1) if options.quick else (20_000, 8)
    data = MODEL.simulator.sample(number, seed=SEED)
    workflow.fit_offline(data, epochs=epochs, batch_size=256, validation_data=1000, data_reuse=0.8)
    weights = workflow.stack(200 if options.quick else 1000)
    print("weights of the mixture:", ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items()))

    num_tests = 50 if options.quick else 200
    test = MODEL.simulator.sample(num_tests, seed=2)
    scores = {name: values.mean() for name, values in workflow.log_prob(test, merge_members=False).items()}
    scores["mixture"] = workflow.log_prob(test).mean()
    scores["exact"] = np.mean(
        [
            MODEL.posterior(x).log_prob(theta[None])[0]
            for x, theta in zip(test["x"], test["theta"], strict=True)
        ]
    )
    print(
        "mean log density of the true parameters [nats]:",
        ", ".join(f"{name} {score:.3f}" for name, score in scores.items()),
    )

    usual = test["x"][:1]
    strange = np.random.default_rng(3).normal(
        6.0, 0.3, size=(1, 20, 1)
    )  # the prior of the mean is Normal(0, 1)
    reference = workflow.disagreement(test, num_samples=100, seed=4)
    apart = workflow.disagreement({"x": np.concatenate([usual, strange])}, num_samples=100, seed=4)
    share = (reference[:, None] >= apart).mean(axis=0)
    print(
        f"disagreement: usual {apart[0]:.4f} nats ({share[0]:.0%} of the tests have more), strange "
        f"{apart[1]:.4f} ({share[1]:.0%})"
    )
    for name, certificate in zip(
        ("usual", "strange"),
        workflow.approximator.certify({"x": np.concatenate([usual, strange])}),
        strict=True,
    ):
        print(f"{name}: {certificate.verdict}", *certificate.warnings)

    figure = Figure(figsize=(10.0, 3.3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    edges = np.geomspace(reference.min(), max(reference.max(), apart.max()) * 1.2, 30)
    left.hist(reference, edges, color="#8A8A8A", alpha=0.5, label="test simulations")
    left.axvline(apart[0], color="#0072B2", linewidth=2, label="usual")
    left.axvline(apart[1], color="#D55E00", linewidth=2, label="strange")
    left.set(xscale="log", xlabel="disagreement between members [nats]", ylabel="test simulations")
    left.set_ylim(0, 1.4 * left.get_ylim()[1])
    left.legend(frameon=False, fontsize=8, loc="upper left")
    for axes, x, title in ((middle, usual, "usual observation"), (right, strange, "strange observation")):
        members = workflow.sample(num_samples=4000, conditions={"x": x}, merge_members=False, seed=5)
        exact = MODEL.posterior(x[0])
        for (name, draws), color in zip(members.items(), ("#0072B2", "#E69F00", "#009E73"), strict=True):
            mean = draws["theta"][0, :, 0]
            axes.hist(mean, 60, density=True, histtype="step", color=color, linewidth=1.3, label=name)
        grid = np.linspace(exact.mean[0] - 4 * exact.sd[0], exact.mean[0] + 4 * exact.sd[0], 200)
        axes.plot(grid, exact.mean_density(grid), color="#222222", linestyle=(0, (4, 3)), label="exact")
        axes.set(title=title, xlabel="mean", yticks=[])
        axes.locator_params(axis="x", nbins=5)
    middle.set_ylabel("posterior density")
    middle.legend(frameon=False, fontsize=8)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "ensemble.png", dpi=100)


if __name__ == "__main__":
    main()
