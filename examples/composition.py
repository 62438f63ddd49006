"""From one observation to a hundred: a joint posterior composed from a network of single observations.

Shows: `CompositionalWorkflow`, trained on single data sets of five measurements, asked for the posterior of
1, 3, 10, 30 and 100 such data sets of the same parameters together, without training again, and the reports
that say how far to trust it.

    python examples/composition.py --output figures

Time on one core: 83 s; with --quick 15 s, which trains too little to be right.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import sbi_models as bf
from sbi_models.simulators.benchmarks import NormalModel

SEED = 1
MODEL = NormalModel(
    num_observations=5
)  # mean and log variance of five normals; the exact posterior is known by quadrature
TRUTH = np.array([0.3, -0.5])


def main() -> None:
    """Train on single data sets, compose up to a hundred, and compare with quadrature of all measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()

    workflow = bf.CompositionalWorkflow(
        MODEL.simulator,
        inference_variables="theta",
        summary_variables="x",
        summary_network=bf.networks.DeepSet(widths=(32, 32)),
        standardize="all",
        initial_learning_rate=2e-3,
        seed=SEED,
    )
    epochs = 2 if options.quick else 10
    workflow.fit_online(epochs=epochs, num_batches_per_epoch=50 if options.quick else 200, batch_size=128)

    numbers = (1, 10) if options.quick else (1, 3, 10, 30, 100)
    x = MODEL.simulator.sample(max(numbers), seed=2, theta=TRUTH)[
        "x"
    ]  # (100, 5, 1): one theta, a hundred data sets
    draws, exact = {}, {}
    print(
        "data sets  mean: composed        exact            variance (log): composed  "
        "exact            warnings"
    )
    for n in numbers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bf.errors.TrustWarning)  # they are printed from the report
            found, reports = workflow.compositional_sample(
                num_samples=2000, conditions={"x": x[None, :n]}, return_diagnostics=True, seed=3
            )
        draws[n], exact[n] = found["theta"][0], MODEL.posterior(x[:n].reshape(-1))
        pairs = [
            f"{draws[n][:, k].mean():+.3f} ± {draws[n][:, k].std():.3f}   {exact[n].mean[k]:+.3f} "
            f"± {exact[n].sd[k]:.3f}"
            for k in (0, 1)
        ]
        print(f"{n:<10} {pairs[0]}   {pairs[1]}   {len(reports[0].warnings)}")
        for warning in reports[0].warnings:
            print(f"           {warning}")

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for k, (axes, name) in enumerate(zip(figure.subplots(1, 2), ("mean", "log variance"), strict=True)):
        for place, n in enumerate(numbers):
            ends = np.quantile(draws[n][:, k], [0.025, 0.975])
            axes.plot(
                [place - 0.12] * 2,
                ends,
                color="#0072B2",
                linewidth=3,
                label="composed, 95 % interval" if place == 0 else None,
            )
            axes.plot(place - 0.12, draws[n][:, k].mean(), "o", color="#0072B2")
            ends = exact[n].quantiles([0.025, 0.975])[:, k]
            axes.plot(
                [place + 0.12] * 2,
                ends,
                color="#D55E00",
                linewidth=3,
                label="exact, 95 % interval" if place == 0 else None,
            )
            axes.plot(place + 0.12, exact[n].mean[k], "o", color="#D55E00")
        axes.axhline(TRUTH[k], color="#222222", linewidth=0.8, linestyle=(0, (4, 3)), label="true value")
        axes.set(title=name, xlabel="data sets composed", xticks=range(len(numbers)), xticklabels=numbers)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "composition.png", dpi=100)


if __name__ == "__main__":
    main()
