"""Runs a small Michelson experiment in the current folder and prints its result as one line of JSON: `python small_run.py SETTINGS`."""

import json
import sys

from flows.michelson import EXPERIMENT
from flows.parameters import Diagnose, Experiment, Infer, Network, Simulate, Train
from flows.pipeline import run

SMALL = EXPERIMENT.model_copy(
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
        "infer": Infer(num_samples=200),
    }
)


def small_experiment(changes: dict[str, object]) -> Experiment:
    """The small experiment with some settings changed, for instance {"seed": 2, "train": {"epochs": 50}}."""
    settings = SMALL.model_dump()
    for name, value in changes.items():
        settings[name] = settings[name] | value if isinstance(value, dict) else value
    return Experiment.model_validate(settings)


if __name__ == "__main__":
    print("RESULT " + json.dumps(run(small_experiment(json.loads(sys.argv[1])))))
