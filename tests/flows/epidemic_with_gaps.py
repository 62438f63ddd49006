"""An experiment of an epidemic, a SIR model whose daily case numbers are missing on some days."""

import json
from pathlib import Path
from typing import Any

MODULE = '''
import numpy as np
import sbi_models as bf
from sbi_models.adapters import Transform, register_transform

DAYS, PEOPLE = 14, 1000.0


@register_transform("log1p_MODULE")
class Log1p(Transform):
    """Logarithm of 1 + x."""

    def __init__(self, name):
        self.name = name

    def forward(self, batch):
        return {key: x.log1p() if key == self.name else x for key, x in batch.items()}

    def inverse(self, batch):
        return {key: x.expm1() if key == self.name else x for key, x in batch.items()}

    def config(self):
        return {"name": self.name}


def prior(batch_size, rng):
    """Contact and recovery rate a day."""
    return {"rates": rng.lognormal([-0.2, -1.0], 0.3, size=(batch_size, 2))}


def epidemic(rates, rng):
    """Infected people on each of 14 days; a share of the days, of no more than a half, is missing."""
    susceptible, infected = np.full(len(rates), PEOPLE), np.full(len(rates), 5.0)
    days = []
    for _ in range(DAYS):
        new = rates[:, 0] * susceptible * infected / PEOPLE
        susceptible, infected = susceptible - new, infected + new - rates[:, 1] * infected
        days.append(infected)
    cases = rng.poisson(np.stack(days, axis=1)).astype(float)
    gaps = GAPS
    return {"cases": np.where(gaps, np.nan, cases)[:, :, None]}


SIMULATOR = bf.make_simulator([prior, epidemic], is_batched=True)
'''

GAPS = "rng.random(cases.shape) < rng.uniform(0, 0.5, size=(len(cases), 1))"

SETTINGS: dict[str, Any] = {
    "inference_variables": ["rates"],
    "summary_variables": ["cases"],
    "parameter_names": {"rates": ["contact", "recovery"]},
    "missing": {"cases": "counted"},
    "simulate": {"training": 2048, "validation": 512, "test": 100},
    "train": {
        "inference_network": {
            "name": "coupling_flow",
            "arguments": {"transform": "affine", "depth": 2, "widths": [32]},
        },
        "summary_network": {
            "name": "time_series_transformer",
            "arguments": {"width": 16, "heads": 2, "blocks": 1, "summary_dim": 4},
        },
        "standardize": "all",
        "epochs": 4,
        "batch_size": 64,
        "initial_learning_rate": 3e-3,
    },
    "diagnose": {"num_samples": 100},
    "infer": {"num_samples": 200, "predictive_replicates": 0},
}


def write_epidemic(folder: Path, module: str, observations: str, *, gaps: str = GAPS, **changes: Any) -> Path:
    """The YAML file of the experiment, with its module and a CSV file of observations beside it.

    Args:
        folder: folder of the files; made if it is not there.
        module: name of the module, which no other test of a process may use; also that of the experiment.
        observations: the CSV file.
        gaps: expression for the missing days of the simulator.
        changes: changes of the settings; None leaves one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(MODULE.replace("GAPS", gaps).replace("_MODULE", f"_{module}"))
    (folder / f"{module}.csv").write_text(observations)
    settings = {
        "name": module,
        "simulator": f"{module}:SIMULATOR",
        "observations": f"{module}.csv",
        "register_as": {"name": module},
        "adapter": [{"log": ["rates"]}, {f"log1p_{module}": "cases"}],
        **SETTINGS,
        **changes,
    }
    path = folder / f"{module}.yaml"
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return path
