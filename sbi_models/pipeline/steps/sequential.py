"""Rounds of simulation that come near the one real observation of an experiment."""

from inspect import signature
from typing import Any

from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import MIN_DATASETS, Experiment, Simulate
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.workflows import sequential_proposal


def check_narrowing(experiment: Experiment, approximator: Approximator) -> None:
    """Before anything is simulated, see that there is one observation to narrow to, and a likelihood and a
    density to weight draws by.

    Args:
        experiment: as its user gave it.
        approximator: approximator of its networks, not trained yet.

    Raises:
        ConfigurationError: if something is missing.
    """
    study = study_of(experiment)
    labels, _ = study.observations()
    if experiment.narrow is not None and len(labels) != 1:
        raise ConfigurationError(
            f"Expected one real data set with narrow, got {len(labels)}. Make an experiment of each of them."
        )
    if experiment.infer.num_proposals is None:
        return
    joint, known = study.simulator.log_joint, (*approximator.inference_names, *approximator.condition_names)
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


def round_of(experiment: Experiment, number: int) -> Experiment:
    """The experiment whose simulations and training are those of a round before the main one, from 0."""
    assert experiment.narrow is not None
    simulate = Simulate(
        training=experiment.narrow.training, validation=experiment.narrow.validation, test=MIN_DATASETS
    )
    seed = seeding.derive(experiment.seed, "round", number)
    return experiment.model_copy(update={"simulate": simulate, "seed": seed})


def narrow_prior(experiment: Experiment, approximator: Approximator) -> dict[str, Any]:
    """The prior of the next round, as JSON."""
    assert experiment.narrow is not None
    study, seed = study_of(experiment), seeding.derive(experiment.seed, "narrow")
    _, observations = study.observations()
    return sequential_proposal(
        study.simulator, approximator, observations, widening=experiment.narrow.widening, seed=seed
    ).prior.as_json()
