"""An experiment with a simulator of the user's own, linear and Gaussian, that a tiny network learns well in
seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np

MODULE = """
from sbi_models import make_simulator

def prior(rng): return {"theta": rng.normal(size=2)}
def likelihood(theta, rng): return {"x": theta + 0.5 * rng.normal(size=2)}

SIMULATOR = make_simulator([prior, likelihood])
"""

SETTINGS: dict[str, Any] = {
    "inference_variables": ["theta"],
    "inference_conditions": ["x"],
    "simulate": {"training": 4096, "validation": 512, "test": 100},
    "train": {
        "inference_network": {
            "name": "coupling_flow",
            "arguments": {"transform": "affine", "depth": 2, "widths": [16]},
        },
        "epochs": 8,
        "initial_learning_rate": 5e-3,
    },
    "diagnose": {"num_samples": 100},
    "infer": {"num_samples": 100, "predictive_replicates": 0},
    "monitor": {"num_datasets": 100, "num_samples": 100},
}


def usual(n: int = 8) -> np.ndarray:
    """Observations (n, 2) of the model."""
    return np.random.default_rng(4).normal(scale=np.sqrt(1.25), size=(n, 2))


def write_experiment(
    folder: Path, module: str, x: np.ndarray | None = None, *, file: str = "mine", **changes: Any
) -> Path:
    """The YAML file of an experiment, with its module and observations beside it.

    Args:
        folder: folder of the files; made if it is not there.
        module: name of the module, which no other test of a process may use; also the name of the experiment
            and of its model.
        x: observations (n, 2), or None.
        file: name of the YAML file and of the observations.
        changes: changes of the settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(MODULE)
    settings = (
        {"name": module, "simulator": f"{module}:SIMULATOR", "register_as": {"name": module}}
        | SETTINGS
        | changes
    )
    if x is not None:
        np.savez(folder / f"{file}.npz", x=x)
        settings["observations"] = f"{file}.npz"
    path = folder / f"{file}.yaml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return path
