"""Does the first two tasks of a small pipeline in the current folder, without Prefect around them: `python small_training.py SETTINGS`."""

import json
import sys

from small_run import small_experiment

from flows.pipeline import start_run, tasks

if __name__ == "__main__":
    experiment = small_experiment(json.loads(sys.argv[1]))
    train = tasks.train if experiment.ensemble is None else tasks.ensemble
    train.fn(experiment, tasks.simulate.fn(experiment), start_run(experiment).run_id)
