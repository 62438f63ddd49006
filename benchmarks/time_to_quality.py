"""CPU seconds of one core from 10 000 simulations of two_moons to posteriors of a C2ST (mlp) of at most 0.60, ours and the peers'.

    python benchmarks/time_to_quality.py [NETWORKS, SUCH AS nsf]

Everything counts from the data in memory to the draws: construction, training with its validation, and 10 000 draws for each of
observations 1 to 3, whose mean C2ST is the score. Each contender trains for 5, 10, 20, 40, 80 or 160 epochs, anew each time, with a
schedule of that length where it has one; counted is the shortest training that is good enough. Networks and batch sizes are the defaults
of each; which of its networks is best for this task is chosen from the scores, for all alike. A peer that has taken longer than another
one to be good enough is not trained longer still. Named networks are added to what has been measured.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIMULATIONS, OBSERVATIONS, TARGET, SEED = 10_000, (1, 2, 3), 0.60, 1
EPOCHS = (5, 10, 20, 40, 80, 160)
CONTENDERS = {
    "ours": ("coupling_flow", "flow_matching", "autoregressive_mixture"),
    "sbi": ("maf", "nsf", "zuko_nsf"),
    "bayesflow-jax": ("SplineCouplingFlow", "FlowMatching"),
    "bayesflow-torch": ("SplineCouplingFlow", "FlowMatching"),
}


def ours(network: str, epochs: int, data: dict[str, np.ndarray], x: np.ndarray, seed: int) -> np.ndarray:
    """A workflow with the defaults of that network."""
    from sbi_models import BasicWorkflow

    workflow = BasicWorkflow(
        inference_variables="theta", inference_conditions="x", inference_network=network, standardize="all", seed=seed, accelerator="cpu"
    )
    workflow.fit_offline(data, epochs=epochs, batch_size=64)
    return workflow.sample(num_samples=10_000, conditions={"x": x}, seed=seed)["theta"]


def bayesflow(network: str, epochs: int, data: dict[str, np.ndarray], x: np.ndarray, seed: int) -> np.ndarray:
    """The peer's workflow with the defaults of that network."""
    import bayesflow as bf
    import keras

    keras.utils.set_random_seed(seed)
    made = bf.networks.FlowMatching() if network == "FlowMatching" else bf.networks.CouplingFlow()
    if network == "SplineCouplingFlow":
        made = bf.networks.CouplingFlow(transform="spline")
    workflow = bf.BasicWorkflow(inference_variables=["theta"], inference_conditions=["x"], inference_network=made, standardize="all")
    workflow.fit_offline(data, epochs=epochs, batch_size=64, verbose=0)
    return np.asarray(workflow.sample(num_samples=10_000, conditions={"x": x})["theta"])


def sbi(network: str, epochs: int, data: dict[str, np.ndarray], x: np.ndarray, seed: int) -> np.ndarray:
    """The peer's neural posterior estimation with the defaults of that flow."""
    import torch
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    torch.manual_seed(seed)
    prior = BoxUniform(-torch.ones(2), torch.ones(2))
    trainer = NPE(prior=prior, density_estimator=network, show_progress_bars=False)
    trainer.append_simulations(*(torch.as_tensor(data[name]) for name in ("theta", "x"))).train(max_num_epochs=epochs)
    posterior = trainer.build_posterior()
    draws = [posterior.sample((10_000,), x=torch.as_tensor(one)[None], show_progress_bars=False).numpy() for one in x]
    return np.stack(draws)


def measure(name: str, network: str, epochs: int, folder: Path) -> dict[str, float]:
    """Train, draw, keep the draws, and tell the CPU seconds, without those of imports."""
    data = dict(np.load(folder / "data.npz"))
    x = np.load(folder / "x.npy")
    contender = {"ours": ours, "sbi": sbi}.get(name, bayesflow)
    contender(network, 1, {key: value[:640] for key, value in data.items()}, x[:1], SEED)  # imports; they are measured by start_up.py
    start = time.process_time()
    draws = contender(network, epochs, data, x, SEED)
    seconds = time.process_time() - start
    np.save(folder / f"{name}-{network}-{epochs}.npy", draws)
    return {"cpu_seconds": seconds}


def good_peers(result: dict[str, dict[str, float]]) -> list[float]:
    """CPU seconds of peers that were good enough."""
    return [found["cpu_seconds"] for key, found in result.items() if not key.startswith("ours") and found["c2st_mlp"] <= TARGET]


def main() -> None:
    """Every contender, longer and longer, until it is good enough."""
    from quality import references
    from turns import HERE, PEERS, figures_of, keep

    from sbi_models.diagnostics import c2st_of_each
    from sbi_models.simulators.benchmarks import BENCHMARKS

    known = [references("two_moons", number) for number in OBSERVATIONS]
    kept = HERE / "speed" / "time_to_quality.json"
    result: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() and sys.argv[1:] else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "x.npy", np.concatenate([x for x, _ in known]).astype(np.float32))
        data = BENCHMARKS["two_moons"].simulator.sample(SIMULATIONS, seed=SEED, progress=False)
        np.savez(folder / "data.npz", **{name: value.astype(np.float32) for name, value in data.items()})
        core = max(os.sched_getaffinity(0))
        for name, networks in CONTENDERS.items():
            for network in networks:
                if (name != "ours" and not PEERS.is_file()) or (sys.argv[1:] and network not in sys.argv[1:]):
                    continue
                for epochs in EPOCHS:
                    found = figures_of(__file__, name, [name, network, str(epochs), scratch], core)
                    draws = np.load(folder / f"{name}-{network}-{epochs}.npy").astype(float)
                    scores = c2st_of_each([reference for _, reference in known], list(draws), "mlp", seed=1)
                    found = {"epochs": epochs, **found, "c2st_mlp": float(np.mean(scores))}
                    print(f"{name:16} {network:20} {json.dumps(found)}", flush=True)
                    result[f"{name} {network}"] = found
                    keep("time_to_quality", result)
                    shortest = min(good_peers(result), default=float("inf"))
                    if found["c2st_mlp"] <= TARGET or (name != "ours" and found["cpu_seconds"] > shortest):
                        break
    own = [found["cpu_seconds"] for key, found in result.items() if key.startswith("ours") and found["c2st_mlp"] <= TARGET]
    print(f"shortest: ours {min(own, default=None)}, peers {min(good_peers(result), default=None)} CPU s")


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] in CONTENDERS:
        print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main()
