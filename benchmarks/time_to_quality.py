"""CPU seconds from 10 000 simulations of two_moons to a C2ST (mlp) of 0.60, ours and the peers'.

    python benchmarks/time_to_quality.py [NETWORKS AND SETTINGS, SUCH AS nsf, nsf/256 OR /256]

Everything counts from the data in memory to the draws: construction, training with its validation, and 10 000
draws for each of observations 1 to 3, whose mean C2ST is the score. Each contender trains for 5, 7, 10, 14,
20, 28, 40, 80 or 160 epochs, anew each time, with a schedule of that length where it has one; counted is the
shortest training that is good enough. Networks are the defaults of each. Batch sizes and learning rates are
its defaults, or 128 and 0.002, or 256 and 0.004 ("/128", "/256"). Which of its networks and settings is best
for this task is chosen from the scores, for all alike. A contender that has taken longer than another of its
own, or a peer that has taken longer than another peer, to be good enough is not trained longer still. What is
named is added to what has been measured.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIMULATIONS, OBSERVATIONS, TARGET, SEED = 10_000, (1, 2, 3), 0.60, 1
EPOCHS = (5, 7, 10, 14, 20, 28, 40, 80, 160)
SETTINGS: dict[str, tuple[int | None, float | None]] = {
    "": (None, None),
    "/128": (128, 2e-3),
    "/256": (256, 4e-3),
}
"""Batch size and learning rate; None: the contender's own."""
CONTENDERS = {
    "ours": ("coupling_flow", "flow_matching", "autoregressive_mixture"),
    "sbi": ("maf", "nsf", "zuko_nsf"),
    "bayesflow-jax": ("SplineCouplingFlow", "FlowMatching"),
    "bayesflow-torch": ("SplineCouplingFlow", "FlowMatching"),
}


def ours(network: str, setting: str, epochs: int, data: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """A workflow with the defaults of that network."""
    from sbi_models import BasicWorkflow

    batch_size, rate = SETTINGS[setting]
    workflow = BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        inference_network=network,
        standardize="all",
        seed=SEED,
        accelerator="cpu",
        **({} if rate is None else {"initial_learning_rate": rate}),
    )
    workflow.fit_offline(data, epochs=epochs, batch_size=batch_size or 64)
    return workflow.sample(num_samples=10_000, conditions={"x": x}, seed=SEED)["theta"]


def bayesflow(
    network: str, setting: str, epochs: int, data: dict[str, np.ndarray], x: np.ndarray
) -> np.ndarray:
    """The peer's workflow with the defaults of that network."""
    import bayesflow as bf
    import keras

    batch_size, rate = SETTINGS[setting]
    keras.utils.set_random_seed(SEED)
    made = bf.networks.FlowMatching() if network == "FlowMatching" else bf.networks.CouplingFlow()
    if network == "SplineCouplingFlow":
        made = bf.networks.CouplingFlow(transform="spline")
    workflow = bf.BasicWorkflow(
        inference_variables=["theta"],
        inference_conditions=["x"],
        inference_network=made,
        standardize="all",
        **({} if rate is None else {"initial_learning_rate": rate}),
    )
    workflow.fit_offline(data, epochs=epochs, batch_size=batch_size or 64, verbose=0)
    return np.asarray(workflow.sample(num_samples=10_000, conditions={"x": x})["theta"])


def sbi(network: str, setting: str, epochs: int, data: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The peer's neural posterior estimation with the defaults of that flow."""
    import torch
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    batch_size, rate = SETTINGS[setting]
    torch.manual_seed(SEED)
    prior = BoxUniform(-torch.ones(2), torch.ones(2))
    trainer = NPE(prior=prior, density_estimator=network, show_progress_bars=False)
    trainer.append_simulations(*(torch.as_tensor(data[name]) for name in ("theta", "x")))
    trainer.train(max_num_epochs=epochs, training_batch_size=batch_size or 200, learning_rate=rate or 5e-4)
    posterior = trainer.build_posterior()
    draws = [
        posterior.sample((10_000,), x=torch.as_tensor(one)[None], show_progress_bars=False).numpy()
        for one in x
    ]
    return np.stack(draws)


def measure(name: str, network: str, setting: str, epochs: int, folder: Path) -> dict[str, float]:
    """Train, draw, store the draws, and print the CPU seconds without imports."""
    data = dict(np.load(folder / "data.npz"))
    x = np.load(folder / "x.npy")
    contender = {"ours": ours, "sbi": sbi}.get(name, bayesflow)
    contender(
        network, setting, 1, {key: value[:640] for key, value in data.items()}, x[:1]
    )  # imports; start_up.py measures them
    start = time.process_time()
    draws = contender(network, setting, epochs, data, x)
    seconds = time.process_time() - start
    np.save(folder / "draws.npy", draws)
    return {"cpu_seconds": seconds}


def shortest(result: dict[str, dict[str, float]], *, own: bool) -> float:
    """CPU seconds of the fastest training that reaches the target, of ours or of the peers."""
    found = (each for key, each in result.items() if key.startswith("ours") == own)
    return min((each["cpu_seconds"] for each in found if each["c2st_mlp"] <= TARGET), default=float("inf"))


def main() -> None:
    """Run every contender, longer and longer, until it reaches the target."""
    from quality import references
    from turns import HERE, PEERS, figures_of, keep

    from sbi_models.diagnostics import c2st_of_each
    from sbi_models.simulators.benchmarks import BENCHMARKS

    wanted = sys.argv[1:]
    runs = [
        (name, network, setting)
        for name in CONTENDERS
        for setting in SETTINGS
        for network in CONTENDERS[name]
    ]
    known = [references("two_moons", number) for number in OBSERVATIONS]
    kept = HERE / "speed" / "time_to_quality.json"
    result: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() and wanted else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "x.npy", np.concatenate([x for x, _ in known]).astype(np.float32))
        data = BENCHMARKS["two_moons"].simulator.sample(SIMULATIONS, seed=SEED, progress=False)
        np.savez(folder / "data.npz", **{name: value.astype(np.float32) for name, value in data.items()})
        core = max(os.sched_getaffinity(0))
        for name, network, setting in runs:
            if (name != "ours" and not PEERS.is_file()) or (
                wanted and not {network + setting, setting} & set(wanted)
            ):
                continue
            for epochs in EPOCHS:
                found = figures_of(__file__, name, [name, network, setting, str(epochs), scratch], core)
                draws = np.load(folder / "draws.npy").astype(float)
                scores = c2st_of_each([reference for _, reference in known], list(draws), "mlp", seed=1)
                found = {"epochs": epochs, **found, "c2st_mlp": float(np.mean(scores))}
                print(f"{name:16} {network + setting:24} {json.dumps(found)}", flush=True)
                best = shortest(result, own=name == "ours")
                result[f"{name} {network}{setting}"] = found
                keep("time_to_quality", result)
                if found["c2st_mlp"] <= TARGET or found["cpu_seconds"] > best:
                    break
    print(f"shortest: ours {shortest(result, own=True):.1f}, peers {shortest(result, own=False):.1f} CPU s")


if __name__ == "__main__":
    if len(sys.argv) == 6 and sys.argv[1] in CONTENDERS:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), Path(sys.argv[5]))))
    else:
        main()
