"""Picture of the README from a run of the main job: `make_overview.py mlruns/artifacts/RUN/artifacts`."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sbi_models.pipeline.studies.michelson import STUDY

BLUE, RUST, INK, PALE = "#0173b2", "#d55e00", "#222222", "#dcebf5"
STAGES = {
    "simulate": "shards on disk,\nany engine",
    "train": "or an ensemble;\nCPU or GPU",
    "diagnose": "a verdict\nin words",
    "register": "challenger,\nchampion",
    "infer": "posteriors with\na certificate",
    "compose": "one posterior of\nmany data sets",
}


def pipeline(axes: Axes) -> None:
    """The stages, left to right, and what goes on around them."""
    axes.set(xlim=(-0.5, len(STAGES) - 0.5), ylim=(-0.55, 0.6))
    axes.axis("off")
    box = {"boxstyle": "round,pad=0.45", "facecolor": PALE, "edgecolor": BLUE}
    for place, (name, what) in enumerate(STAGES.items()):
        axes.text(
            place, 0.3, name, ha="center", va="center", fontsize=13, fontweight="bold", color=INK, bbox=box
        )
        axes.text(place, -0.22, what, ha="center", va="center", fontsize=11, color=INK)
        if place:
            axes.annotate(
                "",
                (place - 0.38, 0.3),
                (place - 0.62, 0.3),
                arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.5},
            )


def posteriors(axes: Axes, folder: Path) -> None:
    """Draws for the speed of light of each experiment, the exact posteriors, and the certificates."""
    names, observations = STUDY.observations()
    certificates = json.loads((folder / "inference" / "certificates.json").read_text())
    draws, speed = pd.read_parquet(folder / "inference" / "draws.parquet"), STUDY.quantities[0]
    for place, (name, references) in enumerate(zip(names, STUDY.references(observations), strict=True)):
        exact, level = references[0], len(names) - 1 - place
        scale = 0.85 / exact.density.max()
        speeds = draws.loc[draws["data_set"].astype(str) == str(name), "mu"].to_numpy()
        heights, edges = np.histogram(speeds, bins=70, density=True)
        filled = {
            "baseline": level,
            "fill": True,
            "color": BLUE,
            "alpha": 0.4,
            "label": None if level else "amortized",
        }
        axes.stairs(level + heights * scale, edges + speed.offset, **filled)
        label = None if level else "exact"
        axes.plot(exact.grid + speed.offset, level + exact.density * scale, color=RUST, lw=1.6, label=label)
        colour = INK if certificates[place]["trusted"] else RUST
        axes.text(
            299_962,
            level + 0.25,
            f"certificate: {certificates[place]['verdict']}",
            fontsize=10.5,
            color=colour,
        )
    axes.axvline(speed.truth + speed.offset, color=INK, ls="--", lw=1, label="today's value")
    axes.set(xlim=(299_700, 300_050), ylim=(-0.1, len(names) + 0.35), yticks=range(len(names)))
    axes.set_yticklabels([f"experiment {name}" for name in reversed(names)], fontsize=11)
    axes.set_xlabel("speed of light in km/s, from twenty runs of 1879 each", fontsize=11)
    axes.set_title("posteriors, each with a certificate", fontsize=12)
    axes.legend(frameon=False, fontsize=10.5, loc="upper center", ncols=3)


def verdict(axes: Axes, folder: Path) -> None:
    """Plot the width factors of test simulations with intervals, and the verdict."""
    found = json.loads((folder / "verdict.json").read_text())
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    judged = {**found["parameters"], "jointly": found["joint"]}
    for place, (name, each) in enumerate(reversed(judged.items())):
        factor = each["width_factor"]
        axes.plot([factor["low"], factor["high"]], [place, place], color=BLUE, lw=2)
        axes.plot(factor["value"], place, "o", color=BLUE)
        axes.text(
            1,
            place + 0.16,
            f"{name.replace('_', ' ')}: {each['label']}",
            ha="center",
            fontsize=11,
            color=INK,
            bbox=white,
        )
    axes.axvline(1, color=INK, ls="--", lw=1)
    axes.set(xlim=(0.7, 1.3), ylim=(-0.5, len(judged) - 0.4), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("factor to multiply sds by", fontsize=11)
    axes.set_title(f"the verdict on {found['num_datasets']} simulations", fontsize=12)


def main() -> None:
    """Draw it beside this file."""
    folder = Path(sys.argv[1])
    figure = plt.figure(figsize=(11, 5.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 2.6))
    pipeline(top.subplots())
    left, right = bottom.subplots(1, 2, width_ratios=(1.5, 1))
    posteriors(left, folder)
    verdict(right, folder)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("overview.png"), dpi=100)


if __name__ == "__main__":
    main()
