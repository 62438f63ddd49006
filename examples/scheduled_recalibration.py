"""A model under watch: drift of the real observations is found, and a challenger takes over, or is refused.

Shows: an experiment of your own in two files, its pipeline, and the flows `monitor` and `retrain` as a schedule would run them. In the
story, a detector counts with a noise of 1; one week its noise is 1.4, and the monitor says so. With the new noise in the simulator,
`retrain` trains a challenger, which passes the gate. A later one, trained too briefly, does not. On a machine that stays on, each is one
line:

    sbi-models schedule detector.yaml --cron "0 3 * * *" --timezone Europe/Berlin --flow monitor
    sbi-models schedule detector.yaml --cron "0 5 * * 0" --timezone Europe/Berlin --flow retrain

Run it:

    python examples/scheduled_recalibration.py --output figures

Time on one core: FULL s, of six runs with a Prefect server each; with --quick QUICK s.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure

import sbi_models as bf

SEED = 1

SIMULATOR = """
import numpy as np
import sbi_models as bf

NOISE = {noise}


def prior(batch_size, rng):
    return {{"theta": rng.normal(size=(batch_size, 2))}}


def likelihood(theta, rng):
    return {{"x": np.repeat(theta, 4, axis=1) + NOISE * rng.normal(size=(len(theta), 8))}}


SIMULATOR = bf.make_simulator([prior, likelihood], is_batched=True)
"""

EXPERIMENT = """
name: detector
simulator: detector:SIMULATOR
observations: seen.npz
inference_variables: [theta]
inference_conditions: [x]
simulate: {{training: {training}, validation: 1000, test: 300}}
train:
  inference_network: {{name: coupling_flow, arguments: {{transform: affine, widths: [32, 32]}}}}
  epochs: {epochs}
  initial_learning_rate: 2.0e-3
infer: {{num_samples: 500, predictive_replicates: 0}}
monitor: {{num_datasets: 300, num_samples: 200}}
register_as: {{name: detector}}
"""


def observe(folder: Path, noise: float, seed: int) -> None:
    """Forty new observations of the real detector, at the place where the experiment looks for them."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(40, 2))
    np.savez(folder / "seen.npz", x=np.repeat(theta, 4, axis=1) + noise * rng.normal(size=(40, 8)))


def settings(folder: Path, *, noise: float, training: int, epochs: int) -> None:
    """The two files of the experiment: simulator and settings."""
    (folder / "detector.py").write_text(SIMULATOR.format(noise=noise))
    (folder / "detector.yaml").write_text(EXPERIMENT.format(training=training, epochs=epochs))


def flow(folder: Path, command: str) -> None:
    """One run, a process of its own, as the schedule starts it: exit code 0 is well, 3 an alarm."""
    program = Path(sys.executable).with_name("sbi-models")
    done = subprocess.run([program, command, "detector.yaml"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(done.stderr)
    told = ("Drift:", "The real observations", "Verdict", "Gate")
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip().startswith(told)]
    print(f"sbi-models {command}: exit code {done.returncode}", *lines, sep="\n  ", flush=True)


def main() -> None:
    """Three weeks of a detector, and what is in the registry after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the figure; default: the current one")
    parser.add_argument("--quick", action="store_true", help="fewer simulations and no third week, to see that it runs")
    options = parser.parse_args()
    good = {"training": 4_000 if options.quick else 10_000, "epochs": 10}

    with TemporaryDirectory() as scratch:  # a folder of yours
        folder, watched = Path(scratch), []

        def watch(week: str) -> None:
            flow(folder, "monitor")
            store = bf.tracking.open_store(folder)
            ended = [run for status in ("FINISHED", "FAILED") for run in bf.tracking.RunRecord.ended(store, "detector", "monitor", status)]
            last = max(ended, key=lambda record: int(record.params["turn"]))
            watched.append((week, last.params["model"].rpartition("/")[2], last.run.data.metrics["drift.p_value"]))

        print("\nWeek 1: the first champion, and observations like its simulations")
        settings(folder, noise=1.0, **good)
        observe(folder, noise=1.0, seed=1)
        flow(folder, "run")
        watch("week 1")
        print("\nWeek 2: the detector is noisier, which the monitor finds; with its new noise a challenger is trained")
        observe(folder, noise=1.4, seed=2)
        watch("week 2")
        settings(folder, noise=1.4, **good)
        flow(folder, "retrain")
        watch("week 2,\nretrained")
        if not options.quick:
            print("\nWeek 3: a challenger whose training was cut short")
            observe(folder, noise=1.4, seed=3)
            settings(folder, noise=1.4, training=good["training"], epochs=1)
            flow(folder, "retrain")
        registry = bf.tracking.open_store(folder).client
        versions = [registry.get_model_version("detector", str(k)) for k in range(1, 4 - options.quick)]
        gates = [f"version {one.version}: {one.tags['gate']}\n{fill(one.tags['gate.reason'], 52)}" for one in versions]

    figure = Figure(figsize=(10.5, 3.6), layout="constrained")
    axes, text = figure.subplots(1, 2)
    for place, (_, version, p_value) in enumerate(watched):
        axes.plot(place, p_value, "o", color="#D55E00" if p_value < 0.01 else "#0072B2", markersize=9)
        axes.annotate(f"champion:\nversion {version}", (place, p_value), xytext=(9, 0), textcoords="offset points", fontsize=8, va="center")
    axes.axhline(0.01, color="#8A8A8A", linestyle=(0, (4, 3)))
    axes.annotate("alarm below this level", (-0.4, 0.008), fontsize=8, va="top", color="#555555")
    axes.set(yscale="log", ylabel="p-value of 40 observations", ylim=(None, 3), xlim=(-0.45, len(watched) - 0.2))
    axes.set_xticks(range(len(watched)), [week for week, _, _ in watched])
    axes.set_title("monitor: are they like the simulations?", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    text.set_title("retrain: what the gate said", fontsize=10)
    text.text(0, 0.95, "\n\n".join(gates), fontsize=8.5, va="top")
    text.set_axis_off()
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "scheduled_recalibration.png", dpi=100)


if __name__ == "__main__":
    main()
