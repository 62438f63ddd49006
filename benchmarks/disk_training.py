"""Throughput and memory of fit_disk against fit_offline: 200 files of 1 000 simulations.

    python benchmarks/disk_training.py

Prints, for fit_offline on all simulations, fit_offline on one file, fit_disk on all files and on half of
them: CPU seconds and seconds of the last epoch, and the peak of resident memory; then what counts, with the
smallest of each in two rounds.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FILES, PER_FILE, BATCH, EPOCHS = 200, 1000, 256, 2
HALF = "0*.npz"


def measure(mode: str, folder: Path) -> dict[str, float]:
    """Train in this process and return its cost."""
    from sbi_models import BasicWorkflow
    from sbi_models.networks import DeepSet, FlowMatching

    workflow = BasicWorkflow(
        inference_variables="theta",
        summary_variables="x",
        inference_network=FlowMatching(widths=(64, 64, 64)),
        summary_network=DeepSet(widths=(32, 32)),
        standardize="all",
        seed=1,
        accelerator="cpu",
        progress=False,
    )
    clock: list[tuple[float, float]] = []
    arguments = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "on_epoch_end": lambda epoch, losses: clock.append((time.time(), time.process_time())),
    }
    if mode == "disk":
        workflow.fit_disk(folder, pattern="*.npz", **arguments)
    elif mode == "half":
        workflow.fit_disk(folder, pattern=HALF, **arguments)
    else:
        paths = sorted(folder.glob("*.npz"))[: 1 if mode == "one file" else None]
        parts = [dict(np.load(path)) for path in paths]
        workflow.fit_offline(
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, **arguments
        )
    seconds, cpu = (clock[-1][i] - clock[0][i] for i in (0, 1))
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Write the files, measure each mode in a process of its own, print."""
    from sbi_models.simulators.benchmarks.michelson import SIMULATOR

    with tempfile.TemporaryDirectory() as scratch:
        for k in range(FILES):
            np.savez(
                Path(scratch) / f"{k:03d}.npz",
                **SIMULATOR.rows(k * PER_FILE, (k + 1) * PER_FILE, seed=1, progress=False),
            )
        results = {}
        for mode in 2 * ("offline", "disk", "half", "one file"):
            done = subprocess.run(
                [sys.executable, __file__, mode, scratch], text=True, capture_output=True, check=True
            )
            result = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{mode:10}", "  ".join(f"{name} {value:8.1f}" for name, value in result.items()), flush=True
            )
            best = results.setdefault(mode, result)
            results[mode] = {name: min(value, best[name]) for name, value in result.items()}
    print(
        "throughput of disk over offline, per CPU second: "
        f"{results['offline']['cpu'] / results['disk']['cpu']:.3f}"
    )
    for other in ("half", "one file"):
        print(
            f"peak memory of disk above {other}: "
            f"{results['disk']['peak_mib'] - results[other]['peak_mib']:.0f} MiB"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
    else:
        main()
