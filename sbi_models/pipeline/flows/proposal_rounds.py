"""Rounds of simulation before the main one, each of which gives the next one its proposal."""

from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.flows.recorder import Recorder
from sbi_models.pipeline.run_record import record_simulations, record_training
from sbi_models.pipeline.steps.sequential import round_of, sequential
from sbi_models.pipeline.steps.simulate import simulations_of
from sbi_models.pipeline.steps.train import training_of, training_step


def proposal_rounds(question: Question, recorder: Recorder, *, fresh: bool) -> Question:
    """The question with the proposal of the last round; each round is a child run."""
    experiment = question.experiment
    assert experiment.sequential is not None
    for number in range(experiment.sequential.rounds):
        settings = round_of(experiment, number)
        early = question.with_settings(settings)
        params = {
            "training": settings.simulate.training,
            "validation": settings.simulate.validation,
            "seed": settings.seed,
        }
        child = recorder.tracker.child(f"round {number + 1}", params)
        simulations, reused = simulations_of(early, fresh=fresh)
        record_simulations(child, simulations, reused)
        training, reused = training_of(early, simulations, child.run_id, fresh=fresh)
        record_training(child, settings.members, training_step(settings).name, training, reused=reused)
        proposal, reused = sequential.reuse(early, training, fresh=fresh)
        child.log_json(proposal.prior, "prior.json")
        question = question.with_proposal(proposal.prior)
        recorder.round(number, simulations, training, proposal, reused)
    return question
