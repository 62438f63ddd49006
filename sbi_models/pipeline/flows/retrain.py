"""The retraining: a new challenger for the champion, trained on more simulations than the last one."""

from prefect import flow

from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.flows.pipeline import pipeline
from sbi_models.pipeline.flows.registry import register_flow
from sbi_models.pipeline.folders import project_root
from sbi_models.pipeline.outcomes import PipelineResult
from sbi_models.pipeline.report.results import show_retraining
from sbi_models.tracking import RunRecord, open_store


@register_flow("retrain", show=show_retraining)
@flow(name="retrain", persist_result=False)
def retrain(experiment: Experiment) -> PipelineResult:
    """Run the pipeline with more simulations than the last finished run had.

    Its gate compares with the champion.

    One that was killed goes on: until a run has finished, the next one is the same.
    """
    result: PipelineResult = pipeline(with_more(experiment))
    return result


def with_more(experiment: Experiment) -> Experiment:
    """The experiment with more training simulations than the last finished run, by as many as it says."""
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
