"""Step `sequential`: the proposal of the next round, around the posterior of one observation."""

from inspect import signature
from time import perf_counter
from typing import Any

from sbi_models import seeding
from sbi_models.approximators import Approximator, load_approximator
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.cache import content_key, question_parts
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.setting_types import MIN_DATASETS
from sbi_models.pipeline.experiment.settings import Experiment, Simulate
from sbi_models.pipeline.outcomes import Proposal, Training
from sbi_models.pipeline.steps.task import done, step
from sbi_models.workflows import sequential_proposal


def sequential_key(question: Question, sha256: str) -> str:
    """Key of the step, from the trained file of the round before."""
    settings = question.experiment.sequential
    return content_key(
        "sequential",
        __name__,
        sha256,
        *question_parts(question),
        None if settings is None else settings.model_dump(),
    )


def _key(arguments: dict[str, Any]) -> str:
    return sequential_key(arguments["question"], arguments["training"].sha256)


@step("sequential", Proposal, _key)
def sequential(question: Question, training: Training) -> Proposal:
    """The proposal around the posterior of the real observation by the approximator of the round before."""
    started, settings = perf_counter(), question.experiment.sequential
    assert settings is not None
    _, observations = question.study.observations()
    simulator = sequential_proposal(
        question.study.simulator,
        load_approximator(training.model),
        observations,
        widening=settings.widening,
        seed=seeding.derive(question.experiment.seed, "narrow"),
    )
    return Proposal(prior=simulator.prior.as_json(), **done(started))


def round_of(experiment: Experiment, number: int) -> Experiment:
    """The experiment whose simulations and training are those of a round before the main one, from 0."""
    assert experiment.sequential is not None
    simulate = Simulate(
        training=experiment.sequential.training,
        validation=experiment.sequential.validation,
        test=MIN_DATASETS,
    )
    seed = seeding.derive(experiment.seed, "round", number)
    return experiment.model_copy(update={"simulate": simulate, "seed": seed})


def check_sequential(question: Question, approximator: Approximator) -> None:
    """See that there is one observation for a proposal, and a likelihood and a density to weight draws by.

    Args:
        question: experiment and study, with the prior.
        approximator: approximator of its networks, not trained yet.

    Raises:
        ConfigurationError: if something is missing.
    """
    experiment, simulator = question.experiment, question.study.simulator
    labels, _ = question.study.observations()
    if experiment.sequential is not None and len(labels) != 1:
        raise ConfigurationError(
            f"Expected one real data set with sequential, got {len(labels)}. Make an experiment of each of "
            "them."
        )
    if experiment.infer.num_proposals is None:
        return
    joint, known = simulator.log_joint, (*approximator.inference_names, *approximator.condition_names)
    if joint is None or not set(signature(joint).parameters) <= set(known):
        raise ConfigurationError(
            "Expected a likelihood with infer.num_proposals, got none: the functions of the simulator are "
            f"methods of one object that has log_joint, too, which takes some of {', '.join(known)}. Leave "
            "num_proposals out, or write it."
        )
    if not all(member.has_density for member in approximator.members.values()):
        raise ConfigurationError(
            "Expected networks with a density with infer.num_proposals, got one without. Leave it out."
        )
