"""Training from simulation files with bounded memory, however many files there are.

Shows: `fit_disk` reads a folder of .npz files a few at a time, here of up to 480 MB, beside `fit_offline`,
which holds all of them. Each training is a process of its own, and what it needs beyond the memory that it
starts with is measured: for files mostly 65 536 simulations, for their moments, and chunks of 32 768.

    python examples/disk_training.py --output figures

Time on one core: 149 s; with --quick 25 s.
"""

import argparse
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from matplotlib.figure import Figure

import sbi_models as bf

SEED, PER_FILE, WIDTH = 1, 10_000, 200


def prior(batch_size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Amplitude and decay rate of a signal: shape (batch_size, 2)."""
    return {"theta": rng.uniform([0.5, 0.5], [2.0, 5.0], size=(batch_size, 2)).astype(np.float32)}


def likelihood(theta: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The signal at 200 times, with noise: 800 bytes for each simulation."""
    signal = theta[:, :1] * np.exp(-theta[:, 1:] * np.linspace(0, 1, WIDTH, dtype=np.float32))
    return {"x": signal + 0.1 * rng.standard_normal(signal.shape, dtype=np.float32)}


SIMULATOR = bf.make_simulator([prior, likelihood], is_batched=True)


def write_files(folder: Path, number: int) -> None:
    """Write `number` simulations, 10 000 per file, with one file in memory at a time.

    Row i depends on the seed and i alone.
    """
    folder.mkdir(parents=True)
    for start in range(0, number, PER_FILE):
        rows = SIMULATOR.rows(start, min(start + PER_FILE, number), seed=SEED, progress=False)
        np.savez(folder / f"{start:09d}.npz", **rows)


def train(folder: Path, method: str) -> tuple[list[float], list[float]]:
    """Train one epoch in this process: seconds since its start, and megabytes beyond its start."""
    workflow = bf.BasicWorkflow(
        SIMULATOR,
        inference_variables="theta",
        inference_conditions="x",
        inference_network=bf.networks.CouplingFlow(transform="affine", depth=2, widths=(32,)),
        standardize="all",
        seed=SEED,
        progress=False,
    )
    workflow.fit_offline(
        SIMULATOR.sample(4096, seed=0), epochs=1, batch_size=4096
    )  # so that everything is imported
    process, seconds, megabytes = psutil.Process(), [], []
    begin, least, done = time.perf_counter(), process.memory_info().rss, threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seconds.append(time.perf_counter() - begin)
            megabytes.append((process.memory_info().rss - least) / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if method == "fit_disk":
        workflow.fit_disk(folder, "*.npz", epochs=1, batch_size=4096)
    else:
        files = [np.load(path) for path in sorted(folder.glob("*.npz"))]
        workflow.fit_offline(
            {name: np.concatenate([file[name] for file in files]) for name in ("theta", "x")},
            epochs=1,
            batch_size=4096,
        )
    done.set()
    watcher.join()
    return seconds, megabytes


def main() -> None:
    """Train on folders of several sizes both ways, and compare what memory they take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path(), help="folder of the figure; default: the current one"
    )
    parser.add_argument("--quick", action="store_true", help="a training of seconds, to see that it runs")
    options = parser.parse_args()
    numbers = {"fit_disk": (20_000,) if options.quick else (100_000, 300_000, 600_000)}
    numbers["fit_offline"] = numbers["fit_disk"][:2]  # more would need gigabytes

    most: dict[str, list[float]] = {"fit_disk": [], "fit_offline": []}
    with TemporaryDirectory() as scratch:  # a folder of yours, to keep the simulations
        for number in numbers["fit_disk"]:
            folder = Path(scratch) / str(number)
            write_files(folder, number)
            size = sum(path.stat().st_size for path in folder.glob("*.npz")) / 1e6
            for method in (method for method in most if number in numbers[method]):
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
                    seconds, megabytes = fresh.submit(train, folder, method).result()
                most[method].append(max(megabytes))
                print(
                    f"{method:<12} {number:>7} simulations, {size:4.0f} MB in files: "
                    f"{max(megabytes):5.0f} MB more, {seconds[-1]:.0f} s"
                )

    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.subplots()
    thousands = {method: np.array(each) / 1000 for method, each in numbers.items()}
    axes.plot(
        thousands["fit_offline"],
        most["fit_offline"],
        "o-",
        color="#D55E00",
        label="fit_offline: all in memory",
    )
    axes.plot(
        thousands["fit_disk"], most["fit_disk"], "o-", color="#0072B2", label="fit_disk: some files at a time"
    )
    size_of = thousands["fit_disk"]
    axes.plot(
        size_of,
        size_of * (WIDTH + 2) * 4 / 1000,
        color="#8A8A8A",
        linestyle=(0, (4, 3)),
        label="size of the files",
    )
    axes.set(
        xlabel="simulations [thousands]", ylabel="memory of the training [MB]", xlim=(0, None), ylim=(0, None)
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "disk_training.png", dpi=100)


if __name__ == "__main__":
    main()
