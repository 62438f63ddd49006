"""Overhead of Prefect, MLflow and the pipeline: the main job against plain library calls.

    python benchmarks/overhead.py [ROUNDS]

CPU seconds of all processes, the Prefect server among them, on one core, and seconds of the clock, with
imports, in a new folder each time. The plain calls simulate, train, save, load, draw for the test
simulations, judge, draw and save the figures, and draw and certify for Michelson's five experiments. They
write no simulations to disk, and compare with no exact posterior, which the main job does.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def plain() -> None:
    """The work of the main job, with the settings of sbi_models/pipeline/studies/michelson.yaml."""
    import pandas as pd
    import yaml

    import flows
    from sbi_models import BasicWorkflow, diagnostics, load, seeding
    from sbi_models.networks import DeepSet, FlowMatching
    from sbi_models.simulators.benchmarks import michelson

    settings = yaml.safe_load((Path(flows.__file__).parent / "experiments" / "michelson.yaml").read_text())
    train, inference = settings["train"], settings["train"]["inference_network"]["arguments"]
    data = {
        purpose: michelson.SIMULATOR.rows(0, number, seed=seeding.derive(1, purpose), progress=False)
        for purpose, number in settings["simulate"].items()
    }
    workflow = BasicWorkflow(
        michelson.SIMULATOR,
        inference_variables="theta",
        summary_variables="x",
        inference_network=FlowMatching(**inference),
        summary_network=DeepSet(**train["summary_network"]["arguments"]),
        standardize="all",
        initial_learning_rate=train["initial_learning_rate"],
        checkpoint_filepath="checkpoints",
        save_best_only=True,
        seed=1,
    )
    history = workflow.fit_offline(
        data["training"], train["epochs"], train["batch_size"], validation_data=data["validation"]
    )
    workflow.approximator.save("michelson.safetensors")
    approximator, test = load("michelson.safetensors"), data["test"]
    draws = approximator.sample(num_samples=settings["diagnose"]["num_samples"], conditions=test, seed=1)
    truth, names = {"theta": test["theta"]}, ["mu", "log_variance"]
    diagnostics.default_metrics(draws, truth, variable_names=names).to_csv("diagnostics.csv")
    verdict = diagnostics.judge(draws, truth, variable_names=names, seed=1)
    figures = diagnostics.default_figures(draws, truth, history=history.history, variable_names=names)
    for name, figure in {**figures, "verdict": diagnostics.plot_verdict(verdict)}.items():
        figure.savefig(f"{name}.png", dpi=120)
    approximator.log_prob(test)
    x = pd.read_csv(michelson.DATA)["speed"].to_numpy().reshape(5, 20, 1)
    approximator.sample(num_samples=settings["infer"]["num_samples"], conditions={"x": x}, seed=1)
    workflow.certify({"x": x})


def measured(command: list[str]) -> dict[str, float]:
    """Seconds of a command and all its processes, on one core, in a new folder."""
    core = str(max(os.sched_getaffinity(0)))
    named = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))
    }
    named.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [shutil.which("taskset") or "taskset", "--cpu-list", core, *command],
            cwd=folder,
            env=named | {"OMP_NUM_THREADS": "1", "CI": "true"},
            text=True,
            capture_output=True,
            check=False,
        )
        seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "seconds": seconds,
    }


def main() -> None:
    """Both, in turns, and the ratios."""
    from turns import keep

    commands = {
        "plain": [sys.executable, str(Path(__file__).resolve()), "plain"],
        "pipeline": [str(Path(sys.executable).with_name("sbi-models")), "run", "michelson"],
    }
    times: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 2):
        for name, command in commands.items():
            times[name].append(measured(command))
            print(name, json.dumps(times[name][-1]), flush=True)
    result = {
        name: {key: min(each[key] for each in found) for key in found[0]} for name, found in times.items()
    }
    ratios = {key: result["pipeline"][key] / result["plain"][key] for key in result["plain"]}
    print("pipeline over plain calls:", json.dumps(ratios))
    keep("overhead", result)


if __name__ == "__main__":
    plain() if sys.argv[1:] == ["plain"] else main()
