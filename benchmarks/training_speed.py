"""Training steps per CPU second of one core: ours, a bare loop of the same networks, and the peers.

    python benchmarks/training_speed.py [ROUNDS]

Series of 20 steps of one feature, two parameters, data in memory. "page": a transformer (two blocks, width
64) and flow matching (a residual network of 0.5 million weights, one noise for each pair); "flow": a deep set
and a coupling flow of six affine blocks. The peers' are their defaults of the same names; sbi gets a
transformer of PyTorch of that size and its own residual network. All train by their offline method; what
counts is the fastest epoch but the first, in which there is compilation, of all rounds.

"bare" is the least that a training loop can do with the networks of "ours": shuffle, slice, loss, backward,
clip, fused AdamW, schedule.
"""

import json
import sys
import time
from itertools import pairwise

import numpy as np

LENGTH, ROWS = 20, 3_200
EPOCHS = 6
"""Epochs that are measured, after the first one."""


def simulations() -> dict[str, np.ndarray]:
    """The data of all: raw, float32."""
    rng = np.random.default_rng(1)
    theta = rng.normal(size=(ROWS, 2))
    x = rng.normal(theta[:, :1], np.exp(theta[:, 1:] / 2), (ROWS, LENGTH))[..., None]
    return {"theta": theta.astype(np.float32), "x": x.astype(np.float32)}


def networks(kind: str):
    """Inference network and summary network of ours."""
    from sbi_models.networks import CouplingFlow, DeepSet, FlowMatching, TimeSeriesTransformer

    if kind == "page":
        return FlowMatching(widths=(256,) * 8, noise_per_pair=1), TimeSeriesTransformer(
            16, width=64, blocks=2, heads=4
        )
    return CouplingFlow(depth=6, transform="affine", subnet="mlp"), DeepSet(
        16, widths=(128,) * 3, head_widths=(192, 128)
    )


class Clock:
    """CPU seconds after each epoch."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, *_: object) -> None:
        self.ends.append(time.process_time())

    def figures(self, batch: int, weights: int) -> dict[str, float]:
        """Of the fastest epoch, the first one aside: other work on the machine only slows one down."""
        fastest = min(end - start for start, end in pairwise(self.ends))
        return {"steps_per_cpu_second": -(-ROWS // batch) / fastest, "weights": weights}


def ours(kind: str, batch: int) -> dict[str, float]:
    """The workflow, with default settings of its training."""
    from sbi_models import BasicWorkflow

    inference, summary = networks(kind)
    workflow = BasicWorkflow(
        inference_variables="theta",
        summary_variables="x",
        inference_network=inference,
        summary_network=summary,
        seed=1,
        accelerator="cpu",
    )
    clock = Clock()
    workflow.fit_offline(simulations(), epochs=1 + EPOCHS, batch_size=batch, on_epoch_end=clock)
    return clock.figures(batch, sum(p.numel() for p in workflow.approximator.parameters()))


def bare(kind: str, batch: int) -> dict[str, float]:
    """Training loop without Lightning or adapters."""
    import torch

    inference, summary = networks(kind)
    data = {name: torch.as_tensor(value) for name, value in simulations().items()}
    data["theta"] = (data["theta"] - data["theta"].mean(0)) / data["theta"].std(0)
    summary.build((LENGTH, 1))
    inference.build(2, summary.summary_dim)
    parameters = [*inference.parameters(), *summary.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, fused=True)
    total = (1 + EPOCHS) * -(-ROWS // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    clock = Clock()
    for _ in range(1 + EPOCHS):
        losses = torch.zeros(())
        for rows in torch.randperm(ROWS).split(batch):
            optimizer.zero_grad()
            loss = inference.loss(data["theta"][rows], summary(data["x"][rows])).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.5)
            optimizer.step()
            schedule.step()
            losses += loss.detach()
        clock()
    return clock.figures(batch, sum(p.numel() for p in parameters))


def bayesflow(kind: str, batch: int) -> dict[str, float]:
    """The peer's workflow with its default networks."""
    import bayesflow as bf
    import keras

    if kind == "page":
        inference, summary = bf.networks.FlowMatching(), bf.networks.TimeSeriesTransformer(summary_dim=16)
    else:
        inference, summary = bf.networks.CouplingFlow(), bf.networks.DeepSet(summary_dim=16)
    workflow = bf.BasicWorkflow(
        inference_variables=["theta"],
        summary_variables=["x"],
        inference_network=inference,
        summary_network=summary,
    )
    clock = Clock()
    ends = keras.callbacks.LambdaCallback(on_epoch_end=clock)
    workflow.fit_offline(simulations(), epochs=1 + EPOCHS, batch_size=batch, callbacks=[ends], verbose=0)
    weights = sum(int(np.prod(v.shape)) for v in workflow.approximator.trainable_weights)
    return clock.figures(batch, weights)


def sbi(batch: int) -> dict[str, float]:
    """The peer's flow matching, with a fiftieth of the rows for validation, which it requires."""
    import torch
    from sbi.inference import FMPE
    from sbi.neural_nets import posterior_flow_nn
    from torch import nn

    class Transformer(nn.Module):
        """Of the size of the others: two blocks of width 64, mean, and a linear map to 16 summaries."""

        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                64, 4, dim_feedforward=288, dropout=0.0, batch_first=True, norm_first=True
            )
            self.first, self.blocks, self.last = (
                nn.Linear(1, 64),
                nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                nn.Linear(64, 16),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.blocks(self.first(x)).mean(dim=1))

    class Recording(FMPE):
        """Record the clock at the end of an epoch."""

        clock = Clock()

        def _converged(self, *arguments: object) -> bool:
            self.clock()
            return super()._converged(*arguments)

    data = {name: torch.as_tensor(value) for name, value in simulations().items()}
    estimator = posterior_flow_nn("mlp", hidden_features=256, num_layers=6, embedding_net=Transformer())
    trainer = Recording(vf_estimator=estimator, show_progress_bars=False).append_simulations(
        data["theta"], data["x"]
    )
    network = trainer.train(training_batch_size=batch, validation_fraction=0.02, max_num_epochs=1 + EPOCHS)
    figures = trainer.clock.figures(batch, sum(p.numel() for p in network.parameters()))
    return figures | {
        "steps_per_cpu_second": figures["steps_per_cpu_second"] * int(ROWS * 0.98 / batch) / -(-ROWS // batch)
    }


def main() -> None:
    """All modes, in turns, and the ratios."""
    from turns import in_turns, keep

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    result = {}
    for kind, batch in (("page", 64), ("page", 512), ("flow", 64)):
        names = ["ours", "bare", "bayesflow-torch", "bayesflow-jax", *(["sbi"] if kind == "page" else [])]
        found = in_turns(__file__, {name: [name, kind, str(batch)] for name in names}, rounds=rounds)
        own = found["ours"]["steps_per_cpu_second"]
        for name, figures in found.items():
            figures["ours_over_it"] = own / figures["steps_per_cpu_second"]
            print(
                f"{kind} {batch}: {name:16} {figures['steps_per_cpu_second']:7.1f} steps / CPU s, "
                f"x {figures['ours_over_it']:.2f}",
                flush=True,
            )
        result[f"{kind} {batch}"] = found
    keep("training_speed", result)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        mode, kind, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
        print(
            json.dumps(
                sbi(batch)
                if mode == "sbi"
                else {"ours": ours, "bare": bare}.get(mode, bayesflow)(kind, batch)
            )
        )
    else:
        main()
