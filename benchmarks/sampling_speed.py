"""Posterior draws and log densities per CPU second of one core, ours and the peers', with C2ST.

    python benchmarks/sampling_speed.py [NETWORKS]

All train on the same 10 000 simulations of two_moons in batches of 64, the peers for five epochs, which is
short, ours for ten. The CPU seconds of a process until it is trained, imports and compilation included, are
printed. Then they draw 1 000 for each of 5 data sets (coupling flows: of 100), and give the log densities of
500 pairs. The C2ST of 2 000 draws against as many of the reference, for observations 1 to 3, says whether the
draws are as good. The peer sbi has no coupling flow and answers with its default, an autoregressive flow.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIMULATIONS, EPOCHS, OUR_EPOCHS, BATCH = 10_000, 5, 10, 64
OBSERVATIONS = (1, 2, 3)
SETS, SCORED = {"flow_matching": 5, "diffusion_model": 5, "coupling_flow": 100}, 2_000
NAMES = {
    "flow_matching": "FlowMatching",
    "diffusion_model": "DiffusionModel",
    "coupling_flow": "CouplingFlow",
}


def measured(sample, log_prob, keep: Path, counts=(2, 500)) -> dict[str, float]:
    """Draws and log densities per CPU second, and draws for the observations, kept for scoring.

    `sample` takes a number and conditions (n, 2) and gives draws (n, number, 2); `log_prob` takes theta (n,
    2) and x (n, 2), of as many pairs as `counts` says.
    """
    figures = {"training_cpu_seconds": time.process_time()}
    test = np.load(keep / "test.npz")
    sets = test["x"][: SETS[sys.argv[2]]]
    sample(10, sets[:2])  # whatever compiles
    start = time.process_time()
    sample(1000, sets)
    figures["draws_per_cpu_second"] = 1000 * len(sets) / (time.process_time() - start)
    log_prob(test["theta"][:2], test["x"][:2])
    for count in counts:
        start = time.process_time()
        log_prob(test["theta"][:count], test["x"][:count])
        figures[f"log_probs_of_{count}_per_cpu_second"] = count / (time.process_time() - start)
    if not (kept := keep / f"{sys.argv[1]}-{sys.argv[2]}.npy").exists():
        np.save(kept, np.stack([sample(SCORED, x[None])[0] for x in test["observations"]]))
    return figures


def ours(network: str, data: dict[str, np.ndarray], keep: Path) -> dict[str, float]:
    """A workflow with the network of that name."""
    from sbi_models import BasicWorkflow

    workflow = BasicWorkflow(
        inference_variables="theta",
        inference_conditions="x",
        inference_network=network,
        standardize="all",
        seed=1,
        accelerator="cpu",
    )
    workflow.fit_offline(data, epochs=OUR_EPOCHS, batch_size=BATCH)
    return measured(
        lambda number, x: workflow.sample(num_samples=number, conditions={"x": x}, seed=1)["theta"],
        lambda theta, x: workflow.log_prob({"theta": theta, "x": x}),
        keep,
    )


def bayesflow(network: str, data: dict[str, np.ndarray], keep: Path) -> dict[str, float]:
    """The peer's workflow with its network of that name."""
    import bayesflow as bf

    workflow = bf.BasicWorkflow(
        inference_variables=["theta"],
        inference_conditions=["x"],
        inference_network=getattr(bf.networks, NAMES[network])(),
        standardize="all",
    )
    workflow.fit_offline(data, epochs=EPOCHS, batch_size=BATCH, verbose=0)
    as_floats = lambda values: np.asarray(values, dtype=np.float32)  # noqa: E731
    return measured(
        lambda number, x: np.asarray(
            workflow.sample(num_samples=number, conditions={"x": as_floats(x)})["theta"]
        ),
        lambda theta, x: workflow.log_prob({"theta": as_floats(theta), "x": as_floats(x)}),
        keep,
    )


def sbi(network: str, data: dict[str, np.ndarray], keep: Path) -> dict[str, float]:
    """The peer's neural posterior estimation with its default flow, or its flow matching."""
    import torch
    from sbi.inference import FMPE, NPE, NPSE

    trainer = {"coupling_flow": NPE, "flow_matching": FMPE, "diffusion_model": NPSE}[network](
        show_progress_bars=False
    )
    theta, x = (torch.as_tensor(data[name], dtype=torch.float32) for name in ("theta", "x"))
    estimator = trainer.append_simulations(theta, x).train(training_batch_size=BATCH, max_num_epochs=EPOCHS)
    from torch.distributions import Independent, Uniform

    everywhere = Independent(
        Uniform(torch.full((2,), -20.0), torch.full((2,), 20.0)), 1
    )  # so that no draw is thrown away
    posterior = trainer.build_posterior(estimator, prior=everywhere)
    as_tensor = lambda values: torch.as_tensor(np.asarray(values), dtype=torch.float32)  # noqa: E731

    def sample(number, conditions):
        if len(conditions) == 1:
            return posterior.sample((number,), x=as_tensor(conditions), show_progress_bars=False).numpy()[
                None
            ]
        return (
            posterior.sample_batched((number,), x=as_tensor(conditions), show_progress_bars=False)
            .numpy()
            .swapaxes(0, 1)
        )

    def log_prob(theta, conditions):
        if network == "coupling_flow":
            return posterior.log_prob_batched(as_tensor(theta)[None], x=as_tensor(conditions))
        return [
            posterior.log_prob(as_tensor(one)[None], x=as_tensor(x)[None])
            for one, x in zip(theta, conditions, strict=True)
        ]

    return measured(
        sample, log_prob, keep, (2, 500) if network == "coupling_flow" else (2,)
    )  # its fields take one data set at a time


def main() -> None:
    """All networks of all, in turns."""
    from quality import references
    from turns import in_turns, keep

    from sbi_models.diagnostics import c2st_of_each
    from sbi_models.simulators.benchmarks import BENCHMARKS

    simulator = BENCHMARKS["two_moons"].simulator
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(
            folder / "data.npz",
            **{
                k: v.astype(np.float32)
                for k, v in simulator.sample(SIMULATIONS, seed=1, progress=False).items()
            },
        )
        known = [references("two_moons", number) for number in OBSERVATIONS]
        test = simulator.sample(1000, seed=2, progress=False)
        np.savez(folder / "test.npz", observations=np.concatenate([x for x, _ in known]), **test)
        for network in sys.argv[1:] or NAMES:
            names = ("ours", "bayesflow-torch", "bayesflow-jax", "sbi")
            found = in_turns(__file__, {name: [name, network, str(folder)] for name in names}, rounds=1)
            for name, figures in found.items():
                draws = np.load(folder / f"{name}-{network}.npy").astype(float)
                scores = c2st_of_each(
                    [reference[:SCORED] for _, reference in known], list(draws), "mlp", seed=1
                )
                figures["c2st_mlp"] = float(np.mean(scores))
                ratio = found["ours"]["draws_per_cpu_second"] / figures["draws_per_cpu_second"]
                print(f"{network:16} {name:16} {json.dumps(figures)}, draws: x {ratio:.1f}", flush=True)
            keep(f"sampling_speed_{network}", found)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] not in NAMES:
        data = dict(np.load(Path(sys.argv[3]) / "data.npz"))
        mode = {"ours": ours, "sbi": sbi}.get(sys.argv[1], bayesflow)
        print(json.dumps(mode(sys.argv[2], data, Path(sys.argv[3]))))
    else:
        main()
