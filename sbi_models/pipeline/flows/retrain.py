"""A new challenger for the champion, trained on more simulations than the last one."""

from prefect import flow

from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.flows.pipeline import pipeline
from sbi_models.pipeline.outcomes import Manifest
from sbi_models.pipeline.runtime import project_root
from sbi_models.tracking import RunRecord, open_store


@flow(name="retrain", persist_result=False)
def retrain(experiment: Experiment) -> Manifest:
    """Add simulations to those of the last finished run, and run the pipeline with them; its gate compares
    with the champion.

    One that was killed goes on: until a run has finished, the next one is the same.
    """
    return pipeline(with_more(experiment))


def with_more(experiment: Experiment) -> Experiment:
    """The experiment with as many more training simulations as its settings say than the last finished run
    had."""
    runs = RunRecord.ended(open_store(project_root()), experiment.name, "pipeline", "FINISHED")
    had = max(
        (
            int(run.params["simulate.training"])
            for run in runs
            if run.params.get("seed") == str(experiment.seed)
        ),
        default=0,
    )
    first, more = experiment.simulate.training, experiment.retrain.more
    training = first if had == 0 else had + (first if more is None else more)
    return experiment.model_copy(
        update={"simulate": experiment.simulate.model_copy(update={"training": training})}
    )
