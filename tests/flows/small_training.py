"""Does the first two tasks of a small pipeline in the current folder, without Prefect around them: `python
small_training.py SETTINGS`."""

import json
import sys

from small_run import small_experiment

from sbi_models.pipeline.experiment.question import Question, question_of
from sbi_models.pipeline.flows.run_start import start_run
from sbi_models.pipeline.steps.simulate import missing_shards, simulate, simulate_shard, stores_of
from sbi_models.pipeline.steps.train import training_step


def simulate_here(question: Question) -> None:
    """All shards, one after another."""
    for shard in missing_shards(question):
        simulate_shard.fn(question, shard)


if __name__ == "__main__":
    question = question_of(small_experiment(json.loads(sys.argv[1])))
    simulate_here(question)
    simulations = simulate.fn(question, stores_of(question))
    training_step(question.experiment).fn(question, simulations, start_run(question).run_id)
