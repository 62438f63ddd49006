"""Rounds of simulation that come near the one real observation of an experiment."""

from typing import Any

from flows.parameters import MIN_DATASETS, Experiment, Simulate
from flows.studies import study_of
from sbi_models import seeding
from sbi_models.approximators import Approximator
from sbi_models.errors import ConfigurationError
from sbi_models.workflows import narrow


def check_narrowing(experiment: Experiment) -> None:
    """Raise ConfigurationError if an experiment that narrows its prior has no single observation, or no likelihood to weight draws by."""
    if experiment.narrowed_to is not None:
        raise ConfigurationError("Expected no narrowed_to, which the pipeline finds, got some. Leave it out.")
    study = study_of(experiment)
    labels, _ = study.observations()
    if experiment.narrow is not None and len(labels) != 1:
        raise ConfigurationError(f"Expected one real data set with narrow, got {len(labels)}. Make an experiment of each of them.")
    if experiment.infer.num_proposals is not None and study.simulator.log_joint is None:
        raise ConfigurationError(
            "Expected a likelihood with infer.num_proposals, got none: the functions of the simulator are methods of one object that has "
            "log_joint(theta, x), by the names of the variables. Leave num_proposals out, or write it."
        )


def round_of(experiment: Experiment, number: int) -> Experiment:
    """The experiment whose simulations and training are those of a round before the main one, from 0."""
    assert experiment.narrow is not None
    simulate = Simulate(training=experiment.narrow.training, validation=experiment.narrow.validation, test=MIN_DATASETS)
    seed = seeding.derive(experiment.seed, "round", number)
    return experiment.model_copy(update={"simulate": simulate, "seed": seed})


def narrow_prior(experiment: Experiment, approximator: Approximator) -> dict[str, Any]:
    """The prior of the next round, as JSON."""
    assert experiment.narrow is not None
    study, seed = study_of(experiment), seeding.derive(experiment.seed, "narrow")
    _, observations = study.observations()
    return narrow(study.simulator, approximator, observations, widening=experiment.narrow.widening, seed=seed).prior.as_json()
