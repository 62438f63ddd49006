"""C2ST of posteriors on the tasks of the benchmark of simulation-based inference (sbibm).

    python benchmarks/quality.py run TASK BUDGET [--network NAME] [--seed N] [--track]
    python benchmarks/quality.py train ...     and later      python benchmarks/quality.py score ...

`run` trains on BUDGET simulations, validation among them, draws 10 000 samples for each of the 10
observations of the task, scores them against the 10 000 reference draws, and writes
benchmarks/results/TASK-BUDGET-NETWORK-SEED.json; with `--track` it is also a run in MLflow. `train` keeps the
draws, for `score` to score. `tables.py` makes benchmarks/RESULTS.md of all results. Networks: "auto"; any
name, with its defaults and early stopping; the peer "sbi" (`peers.py`). References are used here, to score,
and nowhere else.

C2ST has two classifiers: "mlp", that of sbibm (docs/quality.md), and "random_forest", that of sbi's default;
0.5 is perfect. References and observations are those of sbibm 1.1.0, whose wheel pip downloads and this
script unpacks, without installing it (J.-M. Lueckmann et al., Benchmarking simulation-based inference,
AISTATS 2021). Seconds are of one thread.
"""

import argparse
import bz2
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from peers import Sbi

from sbi_models import BasicWorkflow
from sbi_models.diagnostics import c2st_of_each
from sbi_models.simulators.benchmarks import BENCHMARKS
from sbi_models.tracking import Tracker, open_store

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
WHEEL = "sbibm==1.1.0"
CACHE = Path.home() / ".cache" / "sbi_models" / "sbibm-1.1.0"
UNSCORED = HERE / "draws"
DRAWS, OBSERVATIONS = 10_000, 10
CLASSIFIERS = ("mlp", "random_forest")

FOLDERS = {"bernoulli_glm_raw": "bernoulli_glm", "slcp_distractors": "slcp"}
FILES = {"bernoulli_glm_raw": "observation_raw.csv", "slcp_distractors": "observation_distractors.csv"}

RECORDS = {
    "two_moons": {1_000: (0.715, 0.570), 10_000: (0.608, 0.513), 100_000: (0.542, 0.502)},
    "gaussian_mixture": {1_000: (0.701, 0.547), 10_000: (0.602, 0.511), 100_000: (0.547, 0.501)},
    "gaussian_linear": {1_000: (0.611, 0.538), 10_000: (0.534, 0.505), 100_000: (0.506, 0.499)},
    "gaussian_linear_uniform": {1_000: (0.682, 0.555), 10_000: (0.543, 0.542), 100_000: (0.506, 0.524)},
    "bernoulli_glm": {1_000: (0.735, 0.722), 10_000: (0.597, 0.616), 100_000: (0.547, 0.546)},
    "bernoulli_glm_raw": {1_000: (0.873, 0.773), 10_000: (0.722, 0.673), 100_000: (0.603, 0.620)},
    "slcp": {1_000: (0.954, 0.831), 10_000: (0.756, 0.620), 100_000: (0.691, 0.535)},
    "slcp_distractors": {1_000: (0.981, 0.917), 10_000: (0.971, 0.917), 100_000: (0.867, None)},
    "lotka_volterra": {1_000: (0.996, 0.936), 10_000: (0.968, 0.824), 100_000: (0.960, 0.661)},
    "sir": {1_000: (0.740, 0.574), 10_000: (0.630, 0.534), 100_000: (0.568, 0.509)},
}
"""The lowest published C2ST of amortized methods, (mlp, random forest)."""


def benchmark_files() -> Path:
    """The folder of sbibm's tasks, downloaded once."""
    if not CACHE.is_dir():
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True
            )
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(folder) / "unpacked")
            (Path(folder) / "unpacked").rename(CACHE)
    return CACHE / "sbibm" / "tasks"


def references(task: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Observation x, shape (1, d), and 10 000 reference draws of theta, raw space."""
    folder = benchmark_files() / FOLDERS.get(task, task) / "files" / f"num_observation_{number}"
    x = np.loadtxt(folder / FILES.get(task, "observation.csv"), delimiter=",", skiprows=1, ndmin=2)
    with bz2.open(folder / "reference_posterior_samples.csv.bz2", "rt") as file:
        draws = np.loadtxt(file, delimiter=",", skiprows=1)
    return x, draws


def trained(task: str, budget: int, network: str, seed: int) -> tuple[BasicWorkflow | Sbi, dict]:
    """Workflow, or peer, trained on `budget` simulations, and the cost of its training."""
    benchmark = BENCHMARKS[task]
    data = benchmark.simulator.sample(budget, seed=seed, progress=False)
    roles = {"inference_variables": "theta", "inference_conditions": "x"}
    clock, cpu = time.perf_counter(), time.process_time()
    workflow: BasicWorkflow | Sbi
    if network == "sbi":
        workflow = Sbi(benchmark, data, seed)
    elif network == "auto":
        workflow = BasicWorkflow(benchmark.simulator, inference_network="auto", seed=seed, **roles)
        workflow.fit_offline(data)
    else:
        held_out = budget // 10
        workflow = BasicWorkflow(
            benchmark.simulator,
            inference_network=network,
            seed=seed,
            standardize="all",
            ema=0.99,
            early_stopping=20,
            **roles,
        )
        workflow.fit_offline(
            {name: value[held_out:] for name, value in data.items()},
            epochs=200,
            batch_size=128,
            validation_data={name: value[:held_out] for name, value in data.items()},
        )
    took = {
        "training_seconds": round(time.perf_counter() - clock, 1),
        "training_cpu_seconds": round(time.process_time() - cpu, 1),
    }
    return workflow, took


def stem_of(result: dict) -> str:
    """The name of the files of one cell of the table."""
    return f"{result['task']}-{result['budget']}-{result['network']}-{result['seed']}"


def train(task: str, budget: int, network: str, seed: int) -> tuple[BasicWorkflow | Sbi, dict]:
    """Train, draw for every observation, and store draws and metadata before scoring."""
    torch.set_num_threads(1)
    workflow, result = trained(task, budget, network, seed)
    result = {"task": task, "budget": budget, "network": network, "seed": seed, **result}
    result["choices"] = {} if workflow.automatic is None else workflow.automatic.choices
    clock, draws = time.process_time(), []
    for number in range(1, OBSERVATIONS + 1):
        x, _ = references(task, number)
        draws.append(
            workflow.sample(num_samples=DRAWS, conditions={"x": x.reshape(1, -1)}, seed=number)["theta"][0]
        )
    result["sampling_cpu_seconds"] = round(time.process_time() - clock, 1)
    for folder in (RESULTS, UNSCORED):
        folder.mkdir(exist_ok=True)
    np.savez(UNSCORED / f"{stem_of(result)}.npz", draws=np.array(draws, dtype=np.float32))
    (UNSCORED / f"{stem_of(result)}.json").write_text(json.dumps(result))
    print(json.dumps(result), flush=True)
    return workflow, result


def score(result: dict, classifiers: Sequence[str], numbers: Sequence[int]) -> dict:
    """C2ST of the draws of one cell, added to its file."""
    draws = np.load(UNSCORED / f"{stem_of(result)}.npz")["draws"]
    path = RESULTS / f"{stem_of(result)}.json"
    references_of = [references(result["task"], number)[1] for number in numbers]
    for name in classifiers:
        clock = time.process_time()
        scores = [
            round(c, 4)
            for c in c2st_of_each(references_of, [draws[n - 1].astype(float) for n in numbers], name, seed=1)
        ]
        print(f"{stem_of(result)}: {name} {scores}, {time.process_time() - clock:.0f} CPU s", flush=True)
        result |= {
            f"c2st_{name}": scores,
            f"mean_{name}": round(mean(scores), 4),
            f"median_{name}": round(median(scores), 4),
        }
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result), flush=True)
    return result


def tracked(result: dict, history: dict[str, list[float]]) -> None:
    """The result as a run of the experiment `quality` in MLflow, in the store of the current folder."""
    params = {name: result[name] for name in ("task", "budget", "network", "seed")} | {
        "choices": result["choices"]
    }
    with Tracker.start(
        open_store(Path.cwd()), "quality", stem_of(result), key=stem_of(result), params=params
    ) as tracker:
        for epoch, losses in enumerate(zip(*history.values(), strict=True), start=1):
            tracker.log_epoch(epoch, dict(zip(history, losses, strict=True)))
        tracker.log_metrics({name: value for name, value in result.items() if isinstance(value, float)})
        tracker.log_json(result, "result.json")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "train", "score"):
        one = commands.add_parser(name)
        one.add_argument("task", choices=sorted(RECORDS))
        one.add_argument("budget", type=int)
        one.add_argument("--network", default="auto")
        one.add_argument("--seed", type=int, default=1)
        if name != "train":
            one.add_argument("--classifiers", nargs="+", choices=CLASSIFIERS, default=CLASSIFIERS)
            one.add_argument("--observations", nargs="+", type=int, default=range(1, OBSERVATIONS + 1))
        if name == "run":
            one.add_argument("--track", action="store_true")
    arguments = parser.parse_args()
    result = {name: getattr(arguments, name) for name in ("task", "budget", "network", "seed")}
    if arguments.command == "score":
        score(
            json.loads((UNSCORED / f"{stem_of(result)}.json").read_text()),
            arguments.classifiers,
            arguments.observations,
        )
        return
    workflow, result = train(**result)
    if arguments.command == "run":
        result = score(result, arguments.classifiers, arguments.observations)
        if arguments.track:
            tracked(
                result,
                workflow.history.history if isinstance(workflow, BasicWorkflow) and workflow.history else {},
            )


if __name__ == "__main__":
    main()
