"""Does the first two tasks of a small pipeline in the current folder, without Prefect around them: `python
small_training.py SETTINGS`."""

import json
import sys

from small_run import small_experiment

from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.flows.pipeline import start_run, tasks
from sbi_models.pipeline.steps.simulate import missing_shards, stores_of


def simulate_here(experiment: Experiment) -> None:
    """All shards, one after another."""
    for call in missing_shards(experiment):
        tasks.simulate_shard.fn(**call)


if __name__ == "__main__":
    experiment = small_experiment(json.loads(sys.argv[1]))
    train = tasks.train if experiment.ensemble is None else tasks.ensemble
    simulate_here(experiment)
    train.fn(experiment, tasks.simulate.fn(experiment, stores_of(experiment)), start_run(experiment).run_id)
