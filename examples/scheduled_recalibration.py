"""Monitoring of a model: drift of real observations, and a challenger that the gate promotes or refuses.

Shows: an experiment of your own in two files, its pipeline, and the flows `monitor` and `retrain` as a
schedule would run them. In the story, a detector counts with a noise of 1; one week its noise is 1.4, and the
monitor says so. With the new noise in the simulator, `retrain` trains a challenger, which passes the gate. A
later one, trained too briefly, does not. On a machine that stays on, each is one line:

    sbi-models schedule detector.yaml --cron "0 3 * * *" --timezone Europe/Berlin --flow monitor
    sbi-models schedule detector.yaml --cron "0 5 * * 0" --timezone Europe/Berlin --flow retrain

Run it:

    python examples/scheduled_recalibration.py --output figures

Time on one core: 111 s; with --quick 71 s.
"""

import argparse
import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import sbi_models as bf

SEED = 1

DETECTOR = """
from functools import partial
import numpy as np
import sbi_models as bf


def prior(batch_size, rng):
    return {"theta": rng.normal(size=(batch_size, 2))}


def likelihood(theta, rng, noise):
    return {"x": np.repeat(theta, 4, axis=1) + noise * rng.normal(size=(len(theta), 8))}


QUIET = bf.make_simulator([prior, partial(likelihood, noise=1.0)], is_batched=True)
NOISY = bf.make_simulator([prior, partial(likelihood, noise=1.4)], is_batched=True)
"""

SETTINGS = """
name: detector
simulator: detector:{simulator}
observations: seen.npz
inference_variables: [theta]
inference_conditions: [x]
simulate: {{training: {training}, validation: 1000, test: 300}}
train:
  inference_network: {{name: coupling_flow, arguments: {{transform: affine, widths: [32, 32]}}}}
  epochs: {epochs}
  batch_size: {batch_size}
  initial_learning_rate: 2.0e-3
infer: {{num_samples: 500, predictive_replicates: 0}}
monitor: {{num_datasets: 300, num_samples: 200}}
register_as: {{name: detector}}
"""


def observe(noise: float, seed: int) -> None:
    """Forty new observations of the real detector, at the place where the experiment looks for them."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(40, 2))
    np.savez("seen.npz", x=np.repeat(theta, 4, axis=1) + noise * rng.normal(size=(40, 8)))


def three_weeks(quick: bool) -> tuple[list[tuple[str, str, float]], list[str]]:
    """Results of monitor, as (week, version of the champion, p-value), and of the gate for each version."""
    # Prefect and the store take the current folder when they are imported; `sbi-models run`, `monitor` and
    # `retrain` are these flows.
    from sbi_models.pipeline.experiment.yaml_files import load_experiment  # noqa: PLC0415
    from sbi_models.pipeline.flows.monitor import monitor  # noqa: PLC0415
    from sbi_models.pipeline.flows.pipeline import pipeline  # noqa: PLC0415
    from sbi_models.pipeline.flows.retrain import retrain  # noqa: PLC0415
    from sbi_models.pipeline.prefect_server.for_one_run import local_prefect  # noqa: PLC0415

    watched: list[tuple[str, str, float]] = []
    gates: list[str] = []
    training = 4_000 if quick else 10_000

    def experiment(simulator: str, epochs: int = 10, batch_size: int = 256) -> Any:
        text = SETTINGS.format(simulator=simulator, training=training, epochs=epochs, batch_size=batch_size)
        Path("detector.yaml").write_text(text)
        return load_experiment("detector.yaml")

    def watch(week: str, settings: Any) -> None:
        try:
            print(f"monitor, {week}: {monitor(settings).monitoring.verdict['sentence']}")
        except (
            bf.errors.DriftError
        ) as drift:  # a schedule shows it as a failed run, the command line by exit code 3
            print(f"monitor, {week}: {drift}")
        store = bf.tracking.open_store()
        ended = [
            run
            for status in ("FINISHED", "FAILED")
            for run in bf.tracking.RunRecord.ended(store, "detector", "monitor", status)
        ]
        last = max(ended, key=lambda record: int(record.params["turn"]))
        watched.append(
            (week, last.params["model"].rpartition("/")[2], last.run.data.metrics["drift.p_value"])
        )

    def train(flow: Any, settings: Any) -> None:
        result = flow(settings)
        words = "passed" if result.gate.promoted else "refused"
        gates.append(
            f"version {result.registered.version}: {words}\n{fill('; '.join(result.gate.reasons), 52)}"
        )
        print(f"{flow.name}: {gates[-1]}")

    Path("detector.py").write_text(DETECTOR)
    with local_prefect():
        observe(noise=1.0, seed=1)
        settings = experiment("QUIET")
        train(pipeline, settings)
        watch("week 1", settings)
        observe(noise=1.4, seed=2)
        watch("week 2", settings)
        settings = experiment("NOISY")
        train(retrain, settings)
        watch("week 2, retrained", settings)
        if not quick:
            train(retrain, experiment("NOISY", epochs=1, batch_size=1024))  # a few dozen steps
    return watched, gates


def main() -> None:
    """Run some weeks of a detector with monitor and gate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer simulations and no refusal, to see that it runs"
    )
    options = parser.parse_args()
    output = options.output.resolve()

    with (
        TemporaryDirectory() as scratch,
        contextlib.chdir(scratch),
    ):  # a folder of yours; all that is tracked lies below it
        watched, gates = three_weeks(options.quick)

    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    axes, text = figure.subplots(1, 2)
    for place, (_, version, p_value) in enumerate(watched):
        axes.plot(place, p_value, "o", color="#D55E00" if p_value < 0.01 else "#0072B2", markersize=9)
        axes.annotate(
            f"champion:\nversion {version}",
            (place, p_value),
            xytext=(9, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
        )
    axes.axhline(0.01, color="#8A8A8A", linestyle=(0, (4, 3)))
    axes.annotate("alarm below this level", (-0.4, 0.008), fontsize=8, va="top", color="#555555")
    axes.set(
        yscale="log", ylabel="p-value of 40 observations", ylim=(None, 100), xlim=(-0.45, len(watched) - 0.2)
    )
    axes.set_xticks(range(len(watched)), [week for week, _, _ in watched])
    axes.set_title("monitor: are they like the simulations?", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    text.set_title("retrain: what the gate said", fontsize=10)
    text.text(0, 0.95, "\n\n".join(gates), fontsize=8.5, va="top")
    text.set_axis_off()
    output.mkdir(parents=True, exist_ok=True)
    figure.savefig(output / "scheduled_recalibration.png", dpi=100)


if __name__ == "__main__":
    main()
