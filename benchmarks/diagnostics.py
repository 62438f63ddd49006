"""CPU seconds of the default diagnostics: all figures, drawn and saved as PNG, all metrics, and the verdict.

    python benchmarks/diagnostics.py

For 300 data sets of 1 000 draws each, in 2 parameters (asked: figures and metrics in less than 2 s) and in 50
(less than 10 s). Each size in a process of its own; imports are not counted, but the simulated bands are.
"""

import subprocess
import sys
import time
from io import BytesIO

import numpy as np

DATA_SETS, DRAWS, SIZES = 300, 1000, (2, 50)


def measure(dim: int) -> None:
    """Print the seconds of every part for one number of parameters."""
    from matplotlib.backends import backend_agg  # noqa: F401 - saving a figure imports it

    from sbi_models.diagnostics import default_figures, default_metrics, judge, plots
    from sbi_models.seeding import generator

    rng = generator(1, "benchmark of diagnostics")
    truth = rng.normal(size=(DATA_SETS, dim))
    mean, sd = 0.8 * (truth + 0.5 * rng.normal(size=truth.shape)), np.sqrt(0.2)
    samples = mean[:, None, :] + sd * rng.normal(size=(DATA_SETS, DRAWS, dim))
    history = {"loss": list(np.exp(-np.arange(20.0))), "val_loss": list(1.1 * np.exp(-np.arange(20.0)))}
    assert plots

    seconds = {}
    clock = time.process_time()
    default_metrics(samples, truth)
    seconds["metrics"] = time.process_time() - clock
    clock = time.process_time()
    figures = default_figures(samples, truth, history)
    seconds["figures"] = time.process_time() - clock
    for name, figure in figures.items():
        clock = time.process_time()
        figure.savefig(BytesIO(), format="png", dpi=120)
        seconds[f"{name}.png"] = time.process_time() - clock
    total = sum(seconds.values())
    clock = time.process_time()
    judge(samples, truth)
    verdict = time.process_time() - clock
    parts = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    print(f"{DATA_SETS} x {DRAWS} x {dim}: {total:.2f} CPU s ({parts}); verdict {verdict:.2f}", flush=True)


def main() -> None:
    """Measure every size, or the one given."""
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
        return
    for dim in SIZES:
        subprocess.run([sys.executable, __file__, str(dim)], check=True)


if __name__ == "__main__":
    main()
