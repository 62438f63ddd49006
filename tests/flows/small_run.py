"""Runs small Michelson experiments in the current folder, one for each argument, the changed settings as
JSON: `python small_run.py {}`.

Prints the result of each as one line of JSON.
"""

import json
import sys
from contextlib import nullcontext

from sbi_models.cli.run import run_flow
from sbi_models.pipeline.experiment.settings import (
    Diagnose,
    Experiment,
    Gate,
    Infer,
    Simulate,
    Train,
)
from sbi_models.pipeline.experiment.training_settings import Network
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.prefect_server.for_one_run import local_prefect
from sbi_models.pipeline.runtime import program_environment

SMALL = load_experiment("michelson").model_copy(
    update={
        "simulate": Simulate(training=4096, validation=512, test=64),
        "train": Train(
            inference_network=Network(name="flow_matching", arguments={"widths": [16, 16], "steps": 4}),
            summary_network=Network(name="deep_set", arguments={"widths": [16], "head_widths": [16]}),
            epochs=3,
            batch_size=256,
            initial_learning_rate=2e-3,
        ),
        "diagnose": Diagnose(num_samples=50),
        "gate": Gate(calibrated=False),  # so short a training is not
        "infer": Infer(num_samples=200),
    }
)


def small_experiment(changes: dict[str, object]) -> Experiment:
    """The small experiment with some settings changed, for instance {"seed": 2, "train": {"epochs": 50}}, or
    one of a "file"."""
    if "file" in changes:
        return load_experiment(str(changes["file"]))
    settings = SMALL.model_dump()
    for name, value in changes.items():
        settings[name] = (settings[name] or {}) | value if isinstance(value, dict) else value
    return Experiment.model_validate(settings)


ENSEMBLE = {
    "simulate": {"training": 2048},
    "train": {"epochs": 6},
    "ensemble": {
        "members": {
            "flow": {"inference_network": SMALL.train.inference_network.model_dump()},
            "coupling": {
                "inference_network": {"name": "coupling_flow", "arguments": {"depth": 1, "widths": [16, 16]}}
            },
        },
        "data_reuse": 0.5,
    },
    "register_as": {"name": "michelson-ensemble"},
}
"""Changes that make an ensemble of the small experiment."""

COMPOSED = {
    "simulate": {"training": 2048},
    "train": {
        "inference_network": {"name": "diffusion_model", "arguments": {"widths": [16, 16], "steps": 4}}
    },
    "compose": {"num_samples": 300},
    "register_as": {"name": "michelson-composed"},
}
"""Changes that make the small experiment compose."""


if __name__ == "__main__":
    with program_environment(), local_prefect() if len(sys.argv) > 2 else nullcontext():  # one for all
        for argument in sys.argv[1:]:
            changes = json.loads(argument)
            flow, fresh = changes.pop("flow", "pipeline"), changes.pop("fresh", False)
            options = {"fresh": True} if fresh else {}
            result = run_flow(flow, small_experiment(changes), **options)
            print("RESULT " + json.dumps(result.model_dump()))
