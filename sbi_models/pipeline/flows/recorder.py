"""Recorder of a pipeline run: each finished step goes to the MLflow run and to the console."""

from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.member_runs import RunWithMembers
from sbi_models.pipeline.outcomes import (
    Composition,
    Decision,
    Diagnosis,
    Inference,
    LearnedLikelihood,
    PipelineResult,
    Proposal,
    Registered,
    Simulations,
    Training,
)
from sbi_models.pipeline.report.console import PipelineConsole
from sbi_models.pipeline.report.html import publish_report
from sbi_models.pipeline.report.markdown import description
from sbi_models.pipeline.report.usage import FILE
from sbi_models.pipeline.run_record import record_decision, record_files, record_simulations, record_training
from sbi_models.pipeline.source_record import record_source
from sbi_models.tracking import Tracker

DESCRIPTION_TAG = "mlflow.note.content"


class Recorder:
    """Writes outcomes to a run and prints them; each method returns its outcome.

    Args:
        tracker: MLflow run.
        question: question that is asked.
    """

    def __init__(self, tracker: Tracker, question: Question) -> None:
        self.tracker, self.question = tracker, question
        self.members = question.experiment.members
        self.run = RunWithMembers(tracker, self.members)
        self.console = PipelineConsole(question)
        self.step = ""
        record_source(tracker, question)
        tracker.log_environment()

    def begin(self, step: str) -> None:
        """A step begins."""
        self.step = step
        self.console.stage(step)

    def round(
        self, number: int, simulations: Simulations, training: Training, proposal: Proposal, reused: bool
    ) -> None:
        """A round of simulation before the main one has led to a proposal."""
        self.console.proposed(number, simulations, training, proposal, reused)

    def simulated(self, simulations: Simulations, reused: bool) -> Simulations:
        record_simulations(self.tracker, simulations, reused, self.console.seconds)
        self.console.simulated(simulations, reused)
        return simulations

    def trained(self, training: Training, reused: bool) -> Training:
        record_training(
            self.tracker, self.members, self.step, training, reused=reused, seconds=self.console.seconds
        )
        self.console.trained(training, reused)
        return training

    def diagnosed(self, diagnosis: Diagnosis, reused: bool) -> Diagnosis:
        record_files(self.run, self.step, diagnosis, reused, self.console.seconds)
        self.console.diagnosed(diagnosis, reused)
        return diagnosis

    def registered(self, registered: Registered, decision: Decision) -> Decision:
        record_decision(self.tracker, registered, decision)
        self.console.registered(registered, decision)
        return decision

    def inferred(self, inference: Inference, reused: bool) -> Inference:
        record_files(self.run, self.step, inference, reused, self.console.seconds)
        self.console.inferred(inference, reused)
        return inference

    def learned(self, learned: LearnedLikelihood, reused: bool) -> LearnedLikelihood:
        record_files(self.run, self.step, learned, reused, self.console.seconds)
        self.console.learned(learned, reused)
        return learned

    def composed(self, composition: Composition, reused: bool) -> Composition:
        record_files(self.run, self.step, composition, reused, self.console.seconds)
        self.console.composed(composition, reused)
        return composition

    def finish(
        self,
        simulations: Simulations,
        training: Training,
        diagnosis: Diagnosis,
        *,
        registered: Registered,
        decision: Decision,
        inference: Inference | None,
        composition: Composition | None,
    ) -> PipelineResult:
        """Describe the run and make its page; the result of the flow."""
        note = description(registered, decision, inference, composition)
        self.tracker.set_tags({DESCRIPTION_TAG: note})
        artifacts = self.tracker.artifact_path
        result = PipelineResult(
            run_id=self.tracker.run_id,
            artifacts=None if artifacts is None else str(artifacts),
            simulations=simulations,
            training=training,
            diagnosis=diagnosis,
            registered=registered,
            gate=decision,
            inference=inference,
            composition=composition,
        )
        error = publish_report(self.tracker, self.question, result)
        return result.model_copy(update={"report": FILE if error is None else None, "report_error": error})
