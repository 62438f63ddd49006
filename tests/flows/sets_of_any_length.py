"""An experiment on sets of normal numbers, whose size is drawn for each context, or for each row."""

import json
from pathlib import Path
from typing import Any

MODULE = """
import numpy as np
import sbi_models as bf


def prior(batch_size, rng):
    return {"mu": rng.normal(size=(batch_size, 1))}


def likelihood(mu, number, batch_size, rng):
    return {"x": mu[:, None] + rng.normal(size=(batch_size, number, 1))}


def one_prior(rng):
    return {"mu": rng.normal(size=1)}


def one_set(mu, rng):
    return {"x": rng.normal(mu, size=(rng.integers(1, 7), 1))}


BY_CONTEXT = bf.make_simulator(
    [prior, likelihood], meta_fn=lambda rng: {"number": rng.integers(1, 7)}, is_batched=True
)
BY_ROW = bf.make_simulator([one_prior, one_set])
"""

SETTINGS: dict[str, Any] = {
    "inference_variables": ["mu"],
    "summary_variables": ["x"],
    "simulate": {"training": 1024, "validation": 128, "test": 100},
    "train": {
        "inference_network": {"name": "coupling_flow", "arguments": {"depth": 2, "widths": [16]}},
        "summary_network": {
            "name": "deep_set",
            "arguments": {"summary_dim": 4, "widths": [16], "head_widths": [16]},
        },
        "epochs": 3,
        "batch_size": 64,
        "initial_learning_rate": 3e-3,
    },
    "diagnose": {"num_samples": 50},
    "gate": {"calibrated": False},
    "infer": {"num_samples": 50, "predictive_replicates": 10},
}

CSV = "person,trial,value\na,1,0.3\na,2,-0.2\nb,2,1.5\nb,1,0.5\nb,3,0.7\nc,1,-1.0\n"
"""Three data sets of 2, 3 and 1 elements; those of the second are out of order."""


def write_sets(folder: Path, module: str, simulator: str, **changes: Any) -> Path:
    """The YAML file of the experiment, with its module and a CSV file of observations beside it.

    Args:
        folder: folder of the files.
        module: name of the module, which no other test of a process may use; also that of the experiment.
        simulator: BY_CONTEXT or BY_ROW.
        changes: changes of the settings.
    """
    (folder / f"{module}.py").write_text(MODULE)
    (folder / "sets.csv").write_text(CSV)
    settings = {
        "name": module,
        "simulator": f"{module}:{simulator}",
        "observations": "sets.csv",
        "register_as": {"name": module},
        **SETTINGS,
        **changes,
    }
    path = folder / f"{module}.yaml"
    path.write_text(json.dumps(settings))
    return path
