"""Step `likelihood`: a learned likelihood of single elements, which a composition is compared with."""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

from sbi_models import load, seeding
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks import InferenceNetwork, network_named
from sbi_models.pipeline.cache import content_key, source_fingerprint
from sbi_models.pipeline.experiment.composition_settings import ComposedLikelihood
from sbi_models.pipeline.experiment.known_prior import density_of
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.folders import work_folder
from sbi_models.pipeline.outcomes import LearnedLikelihood, Results, Simulations
from sbi_models.pipeline.steps.task import done, step
from sbi_models.ragged import is_ragged
from sbi_models.tracking import file_lock
from sbi_models.types import Variables
from sbi_models.workflows import LikelihoodWorkflow
from sbi_models.workflows.basic import AUTO

FILE = "composition/likelihood.safetensors"
"""The trained likelihood, in its folder and in the run."""


def likelihood_key(question: Question, content_hash: Mapping[str, str]) -> str:
    """Key of the step, from the content of the training and validation simulations."""
    experiment = question.experiment
    return content_key(
        "likelihood",
        __name__,
        [content_hash["training"], content_hash["validation"]],
        [experiment.inference_variables, experiment.summary_variables, experiment.inference_conditions],
        source_fingerprint(type(question.study)),
        _settings(experiment).model_dump(),
        [experiment.train.threads, experiment.train.accelerator],
        experiment.seed,
    )


def _key(arguments: dict[str, Any]) -> str:
    return likelihood_key(arguments["question"], arguments["simulations"].content_hash)


@step("likelihood", LearnedLikelihood, _key)
def likelihood(question: Question, simulations: Simulations) -> LearnedLikelihood:
    """Train a LikelihoodWorkflow on the simulations; a killed training goes on from its last epoch."""
    started, key = perf_counter(), likelihood_key(question, simulations.content_hash)
    data = {purpose: simulations.load(purpose) for purpose in ("training", "validation")}
    with file_lock(work_folder() / f"{key}.lock"):
        outcome = learn_likelihood(question, data, key)
    return outcome.model_copy(update=done(started))


def learn_likelihood(question: Question, data: Mapping[str, Variables], key: str) -> LearnedLikelihood:
    """Train the likelihood of a question, or go on where a killed training was.

    Args:
        question: experiment with `compose.likelihood`, and study.
        data: simulations for "training" and "validation", raw space.
        key: key of the folder with checkpoints and the trained file.
    """
    settings, workflow = _settings(question.experiment), likelihood_workflow_of(question, key)
    names = [*workflow.approximator.inference_names, *workflow.approximator.condition_names]
    chosen = {
        purpose: {name: rows[name][: settings.simulations] for name in names}
        for purpose, rows in data.items()
    }
    history = workflow.fit_offline(
        chosen["training"], settings.epochs, settings.batch_size, validation_data=chosen["validation"]
    )
    results = Results(work_folder() / key / "results")
    workflow.approximator.save(results.path(FILE))
    results.metrics |= {
        f"likelihood.{name}": float(values[-1]) for name, values in history.history.items() if values
    }
    fields = results.fields()
    return LearnedLikelihood(**fields, sha256=fields["files"][FILE], history=history.history)


def likelihood_workflow_of(question: Question, key: str = "untrained") -> LikelihoodWorkflow:
    """The untrained workflow of `compose.likelihood`, with its checkpoints in the work folder under a key.

    Raises:
        ConfigurationError: if settings, variables and prior do not fit together.
    """
    experiment, settings = question.experiment, _settings(question.experiment)
    prior = density_of(question.study, experiment.inference_variables)
    variables = [*experiment.summary_variables, *experiment.inference_conditions]
    for name in settings.conditions:
        if name not in variables:
            raise ConfigurationError(
                f"Expected conditions of the experiment in compose.likelihood.conditions, got {name!r}. "
                f"{suggest(name, variables)}"
            )
    observables = [name for name in variables if name not in settings.conditions]
    return LikelihoodWorkflow(
        parameters=experiment.inference_variables,
        observables=observables,
        conditions=settings.conditions or None,
        iid=_kind_of_items(question, observables),
        network=AUTO
        if settings.network.name == AUTO
        else network_named(settings.network.name, settings.network.arguments, InferenceNetwork),  # type: ignore[type-abstract]
        prior=prior,
        checkpoint_filepath=work_folder() / key / "checkpoints",
        checkpoint_name="likelihood",
        restore=True,
        threads=experiment.train.threads,
        accelerator=experiment.train.accelerator,
        seed=seeding.derive(experiment.seed, "likelihood"),
        info={"variable_names": question.study.parameter_names, "trained_by": key},
    )


def trained_likelihood(question: Question, learned: LearnedLikelihood) -> LikelihoodWorkflow:
    """The workflow of a finished step, with the prior of the study."""
    approximator = load(f"{learned.folder}/{FILE}", certify=False)
    prior = density_of(question.study, question.experiment.inference_variables)
    return LikelihoodWorkflow(network=approximator, prior=prior)


def _settings(experiment: Experiment) -> ComposedLikelihood:
    compose = experiment.compose
    return ComposedLikelihood() if compose is None or compose.likelihood is None else compose.likelihood


def _kind_of_items(question: Question, observables: list[str]) -> Any:
    """Whether one data set is an element, (d,), or a set of elements, (N, d)."""
    observed = question.study.observations()[1]
    is_set = any(is_ragged(observed[name]) or observed[name].ndim > 2 for name in observables)
    return "sets" if is_set else "elements"
