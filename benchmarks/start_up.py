"""CPU seconds of a fresh process until its first training step, and of imports alone.

    python benchmarks/start_up.py [ROUNDS]

The first step is that of the page's example (`training_speed.py`, batch 64): one epoch of one step, imports
and construction included.
"""

import json
import sys
import time


def first_step(name: str) -> None:
    """Import, make the workflow, take one step."""
    import numpy as np

    rng = np.random.default_rng(1)
    data = {
        "theta": rng.normal(size=(64, 2)).astype(np.float32),
        "x": rng.normal(size=(64, 20, 1)).astype(np.float32),
    }
    if name == "ours":
        from training_speed import networks

        from sbi_models import BasicWorkflow

        inference, summary = networks("page")
        BasicWorkflow(
            inference_variables="theta",
            summary_variables="x",
            inference_network=inference,
            summary_network=summary,
            accelerator="cpu",
        ).fit_offline(data, epochs=1, batch_size=64)
    elif name == "sbi":
        import torch
        from sbi.inference import FMPE

        x = torch.as_tensor(data["x"]).flatten(1)
        trainer = FMPE(show_progress_bars=False).append_simulations(torch.as_tensor(data["theta"]), x)
        trainer.train(training_batch_size=32, validation_fraction=0.5, max_num_epochs=1)
    else:
        import bayesflow as bf

        bf.BasicWorkflow(
            inference_variables=["theta"],
            summary_variables=["x"],
            inference_network=bf.networks.FlowMatching(),
            summary_network=bf.networks.TimeSeriesTransformer(summary_dim=16),
        ).fit_offline(data, epochs=1, batch_size=64, verbose=0)


def main() -> None:
    """All, in turns."""
    from turns import in_turns, keep

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    modes = {name: [name, "first step"] for name in ("ours", "bayesflow-torch", "bayesflow-jax", "sbi")}
    modes |= {
        f"import {module}": ["import", module] for module in ("sbi_models", "torch", "lightning.pytorch")
    }
    found = in_turns(__file__, modes, rounds=rounds)
    fastest = min(
        found[name]["cpu_seconds"]
        for name in modes
        if name in found and name.startswith(("bayesflow", "sbi"))
    )
    imports = found["import sbi_models"]["cpu_seconds"] / found["import torch"]["cpu_seconds"]
    print(
        f"first step: {found['ours']['cpu_seconds'] / fastest:.2f} of the fastest peer; import: "
        f"{imports:.2f} of import torch"
    )
    keep("start_up", found)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        if sys.argv[1] == "import":
            __import__(sys.argv[2])
        else:
            first_step(sys.argv[1])
        print(json.dumps({"cpu_seconds": time.process_time()}))
    else:
        main()
