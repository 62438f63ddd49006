"""Start of a pipeline run: checks that need no simulations, and its MLflow run."""

from sbi_models.pipeline.cache import content_key, refuse_changed_sources, simulator_fingerprint
from sbi_models.pipeline.custom_diagnostics import custom_functions
from sbi_models.pipeline.data_checks import check_data
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.folders import project_root
from sbi_models.pipeline.steps.likelihood import likelihood_workflow_of
from sbi_models.pipeline.steps.register import check_gate
from sbi_models.pipeline.steps.sequential import check_sequential
from sbi_models.pipeline.steps.simulate import missing_shards
from sbi_models.pipeline.steps.train import workflow_of
from sbi_models.tracking import FLOW_TAG, Tracker, open_store
from sbi_models.training.environment import check_accelerator


def start_run(question: Question) -> Tracker:
    """The MLflow run of a pipeline run; one that was killed half-way is opened again.

    Raises:
        ConfigurationError: if settings do not fit together, before anything is simulated; as `check_data` for
            data that do not.
    """
    experiment = question.experiment
    refuse_changed_sources(question)
    workflow = workflow_of(question)
    approximator = workflow.approximator
    check_sequential(question, approximator)
    if experiment.compose is not None and experiment.compose.likelihood is not None:
        likelihood_workflow_of(question)
    custom_functions(experiment)
    trains_here = experiment.ensemble is None or experiment.engine.kind == "threads"
    if trains_here and missing_shards(question):
        check_accelerator(workflow.settings)
    check_gate(question)
    check_data(question, approximator)
    return Tracker.start(
        open_store(project_root()),
        experiment.name,
        f"{experiment.name} pipeline",
        key=content_key(
            "train",
            "sbi_models.pipeline.steps.train",
            simulator_fingerprint(question),
            experiment.what_matters(),
        ),
        params=experiment.model_dump(mode="json"),
        tags={FLOW_TAG: "pipeline"},
        folder=experiment.folder,
    )
