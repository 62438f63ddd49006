"""GPU speed: training steps, an ensemble, and draws, against the limits of launches and memory.

    python benchmarks/gpu.py [PARTS OF NAMES OF MEASURES]

The page's example as it stands there (flow matching and a transformer of series with their defaults), 12 800
simulations in memory; seconds of the clock, after an epoch that is not counted. "bare" is a loop without
Lightning in PyTorch; with a graph, the whole step is replayed as one CUDA graph: no launches but one, so its
seconds are those of the kernels. Draws: 100 data sets, 1 000 draws each, and one data set, 100 000 draws.
Needs a GPU; prints JSON lines.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from sbi_models import BasicWorkflow, EnsembleWorkflow
from sbi_models.networks import CouplingFlow, DiffusionModel, FlowMatching, TimeSeriesTransformer

ROWS, LENGTH, MEMBERS, EPOCHS = 12_800, 20, 5, 5
ROLES = {
    "inference_variables": "theta",
    "summary_variables": "x",
    "standardize": "all",
    "seed": 1,
    "progress": False,
}


def simulations(rows: int = ROWS) -> dict[str, np.ndarray]:
    """The page's simulator, batched."""
    rng = np.random.default_rng(1)
    theta = rng.normal(size=(rows, 2))
    x = rng.normal(theta[:, :1], np.exp(theta[:, 1:] / 2), (rows, LENGTH))[..., None]
    return {"theta": theta.astype(np.float32), "x": x.astype(np.float32)}


def now() -> float:
    """Seconds of the clock once the GPU is idle."""
    torch.cuda.synchronize()
    return time.perf_counter()


def workflow(**settings: object) -> BasicWorkflow:
    """The page's first example."""
    return BasicWorkflow(
        inference_network=FlowMatching(),
        summary_network=TimeSeriesTransformer(summary_dim=16),
        **ROLES,
        **settings,
    )


def steps_per_second(train: Callable[..., object], batch: int, epochs: int = EPOCHS) -> dict[str, float]:
    """Of all epochs but the first."""
    ends: list[float] = []
    train(simulations(), epochs=epochs, batch_size=batch, on_epoch_end=lambda *_: ends.append(now()))
    return {"steps_per_second": (epochs - 1) * (ROWS // batch) / (ends[-1] - ends[0])}


def networks() -> tuple[FlowMatching, TimeSeriesTransformer]:
    """Those of the page's first example, on the GPU, for loops without a workflow."""
    inference, summary = FlowMatching(), TimeSeriesTransformer(summary_dim=16)
    summary.build((LENGTH, 1))
    inference.build(2, summary.summary_dim)
    return inference.cuda(), summary.cuda()


def bare(batch: int, *, graph: bool, epochs: int = EPOCHS) -> dict[str, float]:
    """A loop with the same networks; with `graph`, one CUDA graph a step."""
    inference, summary = networks()
    data = {name: torch.as_tensor(value).cuda() for name, value in simulations().items()}
    parameters = [*inference.parameters(), *summary.parameters()]
    rate = torch.tensor(5e-4, device="cuda") if graph else 5e-4
    optimizer = torch.optim.AdamW(parameters, lr=rate, fused=True, capturable=graph)
    given = {name: value[:batch].clone() for name, value in data.items()}

    def step() -> None:
        loss = inference.loss(given["theta"], summary(given["x"])).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=not graph)

    take = step
    if graph:
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            step()
        take = captured.replay
    ends = []
    for _ in range(epochs):
        for rows in torch.randperm(ROWS, device="cuda").split(batch):
            for name, value in data.items():
                torch.index_select(value, 0, rows, out=given[name])
            take()
        ends.append(now())
    return {"steps_per_second": (epochs - 1) * (ROWS // batch) / (ends[-1] - ends[0])}


def kernels_of_a_step(batch: int) -> dict[str, float]:
    """Launches and microseconds of kernels of one step of the bare loop, by PyTorch's profiler."""
    inference, summary = networks()
    data = {name: torch.as_tensor(value).cuda() for name, value in simulations(batch).items()}
    parameters = [*inference.parameters(), *summary.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        inference.loss(data["theta"], summary(data["x"])).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.5)
        optimizer.step()

    for _ in range(3):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(10):
            step()
        torch.cuda.synchronize()
    events = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "launches": len(events) / 10,
        "kernel_microseconds": sum(event.time_range.elapsed_us() for event in events) / 10,
        "weights": sum(p.numel() for p in parameters),
    }


def drawing(network: object) -> dict[str, float]:
    """Draws per second of a network after one epoch of training."""
    made = BasicWorkflow(
        inference_network=network, summary_network=TimeSeriesTransformer(summary_dim=16), **ROLES
    )
    made.fit_offline(simulations(5120), epochs=1, batch_size=512)
    made.approximator.cuda()
    x, found = simulations(100)["x"], {}
    for name, number, sets in (("100 x 1 000", 1_000, x), ("1 x 100 000", 100_000, x[:1])):
        made.sample(num_samples=number, conditions={"x": sets}, seed=1)
        start = now()
        made.sample(num_samples=number, conditions={"x": sets}, seed=1)
        found[f"draws per second, {name}"] = number * len(sets) / (now() - start)
    return found


def ensemble(batched: bool) -> Callable[..., object]:
    """Training of members of the page's architecture."""
    made = EnsembleWorkflow(
        inference_networks=FlowMatching(),
        summary_networks=TimeSeriesTransformer(summary_dim=16),
        ensemble_size=MEMBERS,
        batched=batched,
        **ROLES,
    )
    return made.fit_offline


def main() -> None:
    """Run all measures; a failing one is reported and does not stop the others."""
    measures: dict[str, Callable[[], dict[str, float]]] = {
        "kernels of a step, batch 64": lambda: kernels_of_a_step(64),
        "kernels of a step, batch 512": lambda: kernels_of_a_step(512),
        "bare, batch 64": lambda: bare(64, graph=False),
        "bare, batch 64, graph": lambda: bare(64, graph=True),
        "bare, batch 512, graph": lambda: bare(512, graph=True),
        "ours, batch 64": lambda: steps_per_second(workflow().fit_offline, 64),
        "ours, batch 512": lambda: steps_per_second(workflow().fit_offline, 512),
        "ours, batch 64, without graphs": lambda: steps_per_second(
            workflow(cuda_graphs=False).fit_offline, 64, 2
        ),
        "ours, batch 64, compiled": lambda: steps_per_second(workflow(compile=True).fit_offline, 64),
        f"{MEMBERS} members, batch 64": lambda: steps_per_second(ensemble(True), 64),
        f"{MEMBERS} members side by side, batch 64": lambda: steps_per_second(ensemble(False), 64),
        "flow_matching": lambda: drawing(FlowMatching()),
        "diffusion_model": lambda: drawing(DiffusionModel()),
        "coupling_flow": lambda: drawing(CouplingFlow()),
    }
    if len(sys.argv) > 1:
        measures = {
            name: measure for name, measure in measures.items() if any(part in name for part in sys.argv[1:])
        }
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__}), flush=True)
    for name, measure in measures.items():
        start = time.perf_counter()
        try:
            found: dict[str, object] = dict(measure())
        except Exception as error:  # noqa: BLE001 - the others are of use
            found = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(
            json.dumps({"measure": name, **found, "took_s": round(time.perf_counter() - start, 1)}),
            flush=True,
        )


if __name__ == "__main__":
    main()
