"""An experiment with a learned likelihood: single normal numbers, of which data sets have any number."""

import json
from pathlib import Path
from typing import Any

MODULE = """
import torch
from sbi_models import make_simulator

PRIOR = {"mu": torch.distributions.Normal(0.5, 1.0).expand((1,))}
def observe(mu, rng): return {"x": mu + 0.8 * rng.normal(size=mu.shape)}
def own_prior(batch_shape, rng): return {"mu": rng.normal(size=(*batch_shape, 1))}
def observe_sets(mu, rng): return {"x": mu[:, None] + 0.8 * rng.normal(size=(len(mu), 3, 1))}

SIMULATOR = make_simulator([PRIOR, observe], is_batched=True)
SETS = make_simulator([PRIOR, observe_sets], is_batched=True)
NO_DENSITY = make_simulator([own_prior, observe], is_batched=True)
"""

NOISE = 0.8
DATA = {"a": [0.3, -0.2], "b": [1.5, 0.5, 0.7], "c": [-1.0]}

SETTINGS: dict[str, Any] = {
    "inference_variables": ["mu"],
    "inference_conditions": ["x"],
    "likelihood": {"iid": "elements", "diagnosed": 20},
    "simulate": {"training": 20_000, "validation": 512, "test": 100},
    "train": {
        "inference_network": {
            "name": "autoregressive_mixture",
            "arguments": {"components": 1, "trunk_width": 0, "head_width": 8, "head_blocks": 0},
        },
        "epochs": 1,
        "batch_size": 4096,
        "initial_learning_rate": 1e-6,
    },
    "diagnose": {"num_samples": 100},
    "infer": {"num_samples": 500},
    "monitor": {"num_datasets": 20, "num_samples": 50},
}


def write_likelihood(folder: Path, module: str, simulator: str = "SIMULATOR", **changes: Any) -> Path:
    """The YAML file of the experiment, with its module and a CSV file of observations beside it.

    Args:
        folder: folder of the files.
        module: name of the module, which no other test of a process may use; also that of the experiment.
        simulator: SIMULATOR, SETS or NO_DENSITY.
        changes: changes of the settings; None leaves one out.
    """
    (folder / f"{module}.py").write_text(MODULE)
    rows = [f"{label},{k},{x}" for label, data in DATA.items() for k, x in enumerate(data, start=1)]
    (folder / "numbers.csv").write_text("\n".join(["set,trial,x", *rows, ""]))
    settings = {
        "name": module,
        "simulator": f"{module}:{simulator}",
        "observations": "numbers.csv",
        "register_as": {"name": module},
        **SETTINGS,
        **changes,
    }
    path = folder / f"{module}.yaml"
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))
    return path
