"""Step `train`, or `ensemble` in its place: the workflow of the settings, trained on stored simulations."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from prefect import task

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, DataError, TrainingError
from sbi_models.networks import InferenceNetwork, SummaryNetwork, network_named
from sbi_models.pipeline.cache import content_key, source_fingerprint
from sbi_models.pipeline.engines import ATTEMPTS, spread
from sbi_models.pipeline.experiment.adapter_steps import adapter_of, own_classes
from sbi_models.pipeline.experiment.known_prior import prior_of
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.training_settings import Network
from sbi_models.pipeline.folders import forget, project_root, work_folder, work_for
from sbi_models.pipeline.learned_likelihood import choices_of, likelihood_workflow, priors_of
from sbi_models.pipeline.member_runs import RunWithMembers
from sbi_models.pipeline.missing_values import refuse_without_gaps
from sbi_models.pipeline.model_info import PROPOSAL
from sbi_models.pipeline.outcomes import Simulations, TrainedMember, Training, file_sha256
from sbi_models.pipeline.steps.task import Step, done, step
from sbi_models.tracking import Tracker, file_lock, open_store
from sbi_models.types import Variables
from sbi_models.workflows import BasicWorkflow, CompositionalWorkflow, EnsembleWorkflow, LikelihoodWorkflow
from sbi_models.workflows.basic import AUTO
from sbi_models.workflows.construction import bounded

OnEpochEnd = Callable[[int, dict[str, float]], None]


# ---- key ---------------------------------------------------------------------


def train_key(question: Question, content_hash: Mapping[str, str]) -> str:
    """Key of the step, from the content of the training and validation simulations."""
    experiment = question.experiment
    roles = [experiment.inference_variables, experiment.summary_variables, experiment.inference_conditions]
    simulations = [content_hash["training"], content_hash["validation"]]
    own_steps = source_fingerprint(*own_classes(adapter_of(experiment.adapter)))
    inputs = [experiment.adapter, experiment.missing, own_steps]
    parts = (simulations, roles, inputs, question.study.parameter_names, experiment.seed)
    if experiment.likelihood is not None:
        likelihood = experiment.likelihood.model_dump(exclude={"diagnosed", "elements"})
        return content_key(
            "train", __name__, *parts, experiment.train.model_dump(), likelihood, priors_of(question)
        )
    if experiment.ensemble is None:
        return content_key(
            "train", __name__, *parts, experiment.train.model_dump(), experiment.compose is not None
        )
    members = [
        [name, member.model_dump()] for name, member in experiment.members.items()
    ]  # their order decides who has which data
    settings = experiment.train.model_dump(exclude={"inference_network", "summary_network"})
    mixture = experiment.ensemble.model_dump(exclude={"size", "members"})
    return content_key("ensemble", __name__, *parts, settings, members, mixture)


def _key(arguments: dict[str, Any]) -> str:
    return train_key(arguments["question"], arguments["simulations"].content_hash)


# ---- tasks -------------------------------------------------------------------


@step("train", Training, _key)
def train(question: Question, simulations: Simulations, run_id: str, seconds: float = 0.0) -> Training:
    """Train a BasicWorkflow or CompositionalWorkflow; a killed training goes on from its last epoch."""
    return _trained(question, simulations, run_id, seconds)


@step("ensemble", Training, _key)
def ensemble(question: Question, simulations: Simulations, run_id: str, seconds: float = 0.0) -> Training:
    """Train an EnsembleWorkflow, and learn the weights of its members on the validation simulations.

    Members that were trained apart have taken some seconds already.
    """
    return _trained(question, simulations, run_id, seconds)


@task(name="train member")
def train_member(question: Question, simulations: Simulations, run_id: str, member: str, root: str) -> None:
    """Train one member of an ensemble in this process, for the step `ensemble`."""
    work_for(root)
    key = train_key(question, simulations.content_hash)
    run = _run_of(question, run_id)
    with file_lock(work_folder() / f"{key}.{member}.lock"):
        if not part_path(key, member).is_file():
            train_part(question, _training_data(simulations), key, member, partial(run.log_epoch_of, member))
    run.flush()


def training_step(experiment: Experiment) -> Step[Any, Training]:
    """The step that trains an experiment: `train`, or `ensemble`."""
    return train if experiment.ensemble is None else ensemble


def training_of(
    question: Question, simulations: Simulations, run_id: str, *, fresh: bool = False
) -> tuple[Training, bool]:
    """The trained approximator of a question, and whether it was finished in an earlier run.

    Raises:
        DataError: if a variable may be missing, and no training simulation has a gap.
    """
    if question.experiment.may_miss:
        refuse_without_gaps(question.experiment, simulations.store("training"))
    if fresh:
        forget(train_key(question, simulations.content_hash))
    started = perf_counter()
    train_members(question, simulations, run_id)
    seconds = perf_counter() - started
    return training_step(question.experiment).reuse(question, simulations, run_id, seconds, fresh=fresh)


# ---- bodies ------------------------------------------------------------------


def _run_of(question: Question, run_id: str) -> RunWithMembers:
    return RunWithMembers(Tracker.attach(open_store(project_root()), run_id), question.experiment.members)


def _training_data(simulations: Simulations) -> dict[str, Variables]:
    return {purpose: simulations.load(purpose) for purpose in ("training", "validation")}


def _trained(question: Question, simulations: Simulations, run_id: str, seconds: float) -> Training:
    started, key = perf_counter() - seconds, train_key(question, simulations.content_hash)
    run, data = _run_of(question, run_id), _training_data(simulations)
    with file_lock(
        work_folder() / f"{key}.lock"
    ):  # another pipeline with the same training waits, and then uses its states
        training = train_workflow(question, data, key, run.log_epoch)
    run.flush()
    return training.model_copy(update=done(started))


def train_members(question: Question, simulations: Simulations, run_id: str) -> None:
    """Train the missing members on the engine of an experiment, each in a process of its own.

    The engine `threads` leaves that to the step `ensemble`.

    Raises:
        TrainingError: if workers die again and again.
    """
    experiment = question.experiment
    if experiment.ensemble is None or experiment.engine.kind == "threads":
        return
    key, in_vain, engine = train_key(question, simulations.content_hash), 0, experiment.engine
    if (work_folder() / key / f"{experiment.name}.safetensors").is_file():
        return
    common = {
        "question": question,
        "simulations": simulations,
        "run_id": run_id,
        "root": str(project_root()),
    }
    while left := [name for name in experiment.members if not part_path(key, name).is_file()]:
        calls = [common | {"member": name} for name in left]
        lost = spread(train_member, calls, engine, "train members", folder=work_folder())
        absent = [name for name in left if not part_path(key, name).is_file()]
        if len(absent) > lost:
            raise DataError(
                f"Expected the trained members {', '.join(left)} in {work_folder()}, got {len(absent)} "
                f"less, though the engine {engine.kind} says that they are there: do its workers "
                "share this folder? Mount it on their machines."
            )
        in_vain = in_vain + 1 if lost == len(left) else 0
        if in_vain == ATTEMPTS:
            raise TrainingError(
                f"Workers of the engine {engine.kind} died {ATTEMPTS} times while they trained "
                f"members. Is there memory for {len(left)} of them? Use fewer workers. Finished members and "
                "epochs are kept."
            )


def workflow_of(
    question: Question, key: str = "untrained"
) -> BasicWorkflow | EnsembleWorkflow | LikelihoodWorkflow:
    """The untrained workflow of a question, with its checkpoints in the work folder under a key.

    Raises:
        ConfigurationError: if the networks and variables of the experiment do not fit together.
    """
    experiment, study = question.experiment, question.study
    settings = experiment.train
    if experiment.compose is not None and experiment.ensemble is not None:
        raise ConfigurationError(
            "Expected either compose or ensemble, got both: the posteriors of one diffusion model "
            "are composed. Leave one out."
        )
    training: dict[str, Any] = {
        "standardize": settings.standardize,
        "initial_learning_rate": settings.initial_learning_rate,
        "threads": settings.threads,
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "strategy": settings.strategy,
        "checkpoint_filepath": work_folder() / key,
        "checkpoint_name": experiment.name,
        "restore": True,
        "seed": seeding.derive(experiment.seed, "training"),
        "info": {"variable_names": study.parameter_names, "trained_by": key, **_proposal(question)},
    }
    if experiment.likelihood is not None:
        return likelihood_workflow(question, _inference_network(settings.inference_network), training)
    common: dict[str, Any] = {
        "inference_variables": experiment.inference_variables,
        "summary_variables": experiment.summary_variables or None,
        "inference_conditions": experiment.inference_conditions or None,
        **_transforms(question),
        "missing": experiment.missing or None,
        **training,
    }
    if experiment.ensemble is None:
        networks = _inference_network(settings.inference_network), _summary_network(settings.summary_network)
        if experiment.compose is None:
            simulator = study.simulator if networks[0] == AUTO else None  # whose prior it draws from
            return BasicWorkflow(
                simulator, inference_network=networks[0], summary_network=networks[1], **common
            )
        composing = CompositionalWorkflow(
            inference_network=networks[0], summary_network=networks[1], **common
        )
        _check_prior(question, composing)
        return composing
    summaries = {
        name: _summary_network(member.summary_network) for name, member in experiment.members.items()
    }
    workflow = EnsembleWorkflow(
        inference_networks={
            name: _inference_network(member.inference_network) for name, member in experiment.members.items()
        },
        summary_networks={name: network for name, network in summaries.items() if network is not None}
        or None,
        **common,
    )
    for name, member in workflow.approximator.members.items():
        if experiment.ensemble.learn_weights and not member.has_density:
            raise ConfigurationError(
                f"Expected members with a density to learn weights from, got none for {name!r}. "
                "Set learn_weights=False."
            )
    return workflow


def _transforms(question: Question) -> dict[str, Any]:
    """The adapter of an experiment with the supports of priors, or these alone for the default adapter."""
    experiment, known = question.experiment, question.study.simulator.priors
    priors = {name: prior for name, prior in known.items() if name in experiment.inference_variables}
    adapter = adapter_of(experiment.adapter)
    if adapter is None:
        return {"prior": priors or None}
    return {"adapter": bounded(adapter, priors)}


def _proposal(question: Question) -> dict[str, Any]:
    """What a model says of itself if it was trained on a proposal around one observation."""
    return {} if question.proposal is None else {PROPOSAL: question.proposal}


def _check_prior(question: Question, workflow: CompositionalWorkflow) -> None:
    """Raise ConfigurationError if nobody knows the prior, which a composition divides by.

    That is neither the study nor, after training, the network.
    """
    known = prior_of(question.study, workflow.approximator.inference_names)
    if known is None and not workflow.approximator.inference_network.drop_conditions:
        raise ConfigurationError(
            "Expected a prior to compose with, got a study that knows none and a network that learns none "
            "(drop_conditions=0). Leave out drop_conditions, or give the study a method prior_score."
        )


def _inference_network(network: Network) -> InferenceNetwork | str:
    if network.name == AUTO:
        if network.arguments:
            raise ConfigurationError(
                f'Expected no arguments of "auto", which chooses them, got {network.arguments}. '
                "Leave them out."
            )
        return AUTO
    return network_named(network.name, network.arguments, InferenceNetwork)  # type: ignore[type-abstract]


def _summary_network(network: Network | None) -> SummaryNetwork | None:
    return None if network is None else network_named(network.name, network.arguments, SummaryNetwork)  # type: ignore[type-abstract]


def train_part(
    question: Question, data: Mapping[str, Variables], key: str, member: str, on_epoch_end: OnEpochEnd
) -> None:
    """Train one member of an ensemble apart from the others, to the bit as beside them, and save it."""
    workflow, experiment = workflow_of(question, key), question.experiment
    assert isinstance(workflow, EnsembleWorkflow)
    assert experiment.ensemble is not None
    settings = experiment.train
    workflow.fit_offline(
        data["training"],
        settings.epochs,
        settings.batch_size,
        validation_data=data["validation"],
        data_reuse=experiment.ensemble.data_reuse,
        members=[member],
        on_epoch_end=on_epoch_end,
    )
    workflow.parts[-1].save(part_path(key, member))


def part_path(key: str, member: str) -> Path:
    """Where a member that was trained apart is kept for those that put the ensemble together."""
    return work_folder() / key / f"{member}.trained"


def train_workflow(
    question: Question, data: Mapping[str, Variables], key: str, on_epoch_end: OnEpochEnd
) -> Training:
    """Train the workflow of a question, or go on where a killed training was.

    Args:
        question: experiment with networks and settings, and study.
        data: simulations for "training" and "validation", raw space.
        key: key of the folder with checkpoints and the trained file.
        on_epoch_end: function of each epoch (from 1) and its losses; "auto", which trains several, does not
            call it.
    """
    workflow, experiment = workflow_of(question, key), question.experiment
    settings = experiment.train
    training, validation = data["training"], data["validation"]
    fit = workflow.fit_offline
    if isinstance(workflow, EnsembleWorkflow) and experiment.ensemble is not None:
        parts = [part_path(key, name) for name in experiment.members]
        apart = parts if all(part.is_file() for part in parts) else None
        fit = partial(workflow.fit_offline, data_reuse=experiment.ensemble.data_reuse, parts=apart)
    automatic = workflow.automatic if isinstance(workflow, BasicWorkflow) else None
    chooses = settings.inference_network.name == AUTO
    if automatic is not None:
        history = workflow.fit_offline(training, validation_data=validation)
    elif isinstance(workflow, LikelihoodWorkflow) and chooses:
        history = workflow.fit_offline(training, validation_data=validation, on_epoch_end=on_epoch_end)
    else:
        history = fit(
            training,
            settings.epochs,
            settings.batch_size,
            validation_data=validation,
            on_epoch_end=on_epoch_end,
        )
    model, members = work_folder() / key / f"{experiment.name}.safetensors", {}
    if isinstance(workflow, EnsembleWorkflow) and experiment.ensemble is not None:
        if experiment.ensemble.learn_weights:
            workflow.stack(validation)
            workflow.approximator.save(model)
        weights = workflow.approximator.mixture_weights()
        members = {
            name: TrainedMember(
                weight=float(weight),
                best_epoch=history.best_epoch_of(name),
                num_parameters=sum(parameter.numel() for parameter in member.parameters()),
                architecture=json.loads(member.architecture),
            )
            for (name, member), weight in zip(workflow.approximator.members.items(), weights, strict=True)
        }
    return Training(
        key=key,
        model=str(model),
        sha256=file_sha256(model),
        history=history.history,
        choices=choices_of(workflow),
        members=members,
    )
