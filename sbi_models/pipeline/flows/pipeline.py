"""The pipeline: simulate -> train or ensemble -> diagnose -> register -> infer -> likelihood -> compose.

One call is one Prefect flow and one MLflow run. A finished step is used again if nothing that it depends on
has changed.
"""

from prefect import flow

from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.flows.proposal_rounds import proposal_rounds
from sbi_models.pipeline.flows.recorder import Recorder
from sbi_models.pipeline.flows.registry import register_flow
from sbi_models.pipeline.flows.run_start import start_run
from sbi_models.pipeline.outcomes import PipelineResult
from sbi_models.pipeline.report.results import show_pipeline
from sbi_models.pipeline.steps.compose import compose
from sbi_models.pipeline.steps.diagnose import diagnose
from sbi_models.pipeline.steps.infer import infer
from sbi_models.pipeline.steps.likelihood import likelihood
from sbi_models.pipeline.steps.register import decide, register
from sbi_models.pipeline.steps.simulate import simulations_of
from sbi_models.pipeline.steps.train import training_of, training_step


@register_flow("pipeline", show=show_pipeline)
@flow(name="pipeline", persist_result=False)
def pipeline(experiment: Experiment, fresh: bool = False) -> PipelineResult:
    """Run an experiment as one MLflow run; finished steps are used again, unless it is to be fresh."""
    question = question_of(experiment)
    with start_run(question) as tracker:
        recorder = Recorder(tracker, question)

        if experiment.sequential is not None:
            recorder.begin("sequential")
            question = proposal_rounds(question, recorder, fresh=fresh)

        recorder.begin("simulate")
        simulations = recorder.simulated(*simulations_of(question, fresh=fresh))

        recorder.begin(training_step(experiment).name)
        training = recorder.trained(*training_of(question, simulations, tracker.run_id, fresh=fresh))

        recorder.begin("diagnose")
        diagnosis = recorder.diagnosed(*diagnose.reuse(question, simulations, training, fresh=fresh))

        recorder.begin("register")
        registered = register(experiment, training, diagnosis, tracker.run_id)
        decision = recorder.registered(registered, decide(question, simulations, diagnosis, registered))

        inference, composition = None, None
        if question.has_observations:
            recorder.begin("infer")
            inference = recorder.inferred(*infer.reuse(question, training, registered, fresh=fresh))
        if experiment.compose is not None:
            learned = None
            if experiment.compose.likelihood is not None:
                recorder.begin("likelihood")
                learned = recorder.learned(*likelihood.reuse(question, simulations, fresh=fresh))
            recorder.begin("compose")
            composition = recorder.composed(
                *compose.reuse(question, training, registered, learned, fresh=fresh)
            )

        return recorder.finish(
            simulations,
            training,
            diagnosis,
            registered=registered,
            decision=decision,
            inference=inference,
            composition=composition,
        )
