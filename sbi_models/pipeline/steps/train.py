"""The workflow that the settings of an experiment describe, and its training on stored simulations."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sbi_models import seeding
from sbi_models.errors import ConfigurationError
from sbi_models.networks import InferenceNetwork, SummaryNetwork, network_named
from sbi_models.pipeline.cache import file_sha256
from sbi_models.pipeline.experiment.settings import Experiment, Network
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.runtime import work_folder
from sbi_models.pipeline.steps.compose import prior_of
from sbi_models.types import Variables
from sbi_models.workflows import BasicWorkflow, CompositionalWorkflow, EnsembleWorkflow
from sbi_models.workflows.basic import AUTO

Manifest = dict[str, Any]

NARROWED = "narrowed_to"

OnEpochEnd = Callable[[int, dict[str, float]], None]


def workflow_of(experiment: Experiment, key: str = "untrained") -> BasicWorkflow | EnsembleWorkflow:
    """The workflow of an experiment, before any training, which keeps its checkpoints in the work folder
    under a key.

    Raises:
        ConfigurationError: if the networks and variables of the experiment do not fit together.
    """
    settings, study = experiment.train, study_of(experiment)
    if experiment.compose is not None and experiment.ensemble is not None:
        raise ConfigurationError(
            "Expected either compose or ensemble, got both: the posteriors of one diffusion model "
            "are composed. Leave one out."
        )
    common: dict[str, Any] = {
        "inference_variables": experiment.inference_variables,
        "summary_variables": experiment.summary_variables or None,
        "inference_conditions": experiment.inference_conditions or None,
        "prior": {
            name: prior
            for name, prior in study.simulator.priors.items()
            if name in experiment.inference_variables
        }
        or None,
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
        "info": {"variable_names": study.parameter_names, "trained_by": key, **_narrowed(experiment)},
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
        _check_prior(experiment, composing)
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


def _narrowed(experiment: Experiment) -> Manifest:
    """For whoever loads the model: it was trained under a prior around one observation."""
    return {} if experiment.narrowed_to is None else {NARROWED: experiment.narrowed_to}


def _check_prior(experiment: Experiment, workflow: CompositionalWorkflow) -> None:
    """Raise ConfigurationError if neither the study nor, after training, the network knows the prior, which a
    composition divides by."""
    known = prior_of(study_of(experiment), workflow.approximator.inference_names)
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
    experiment: Experiment, data: Mapping[str, Variables], key: str, member: str, on_epoch_end: OnEpochEnd
) -> None:
    """Train one member of an ensemble apart from the others, to the bit as beside them, and leave it for
    `train_workflow`."""
    workflow, settings = workflow_of(experiment, key), experiment.train
    assert isinstance(workflow, EnsembleWorkflow)
    assert experiment.ensemble is not None
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
    experiment: Experiment, data: Mapping[str, Variables], key: str, on_epoch_end: OnEpochEnd
) -> Manifest:
    """Train the workflow of an experiment, or go on where a killed training was; its one file, and how it was
    trained.

    Args:
        experiment: experiment with networks and settings.
        data: simulations for "training" and "validation", raw space.
        key: key of the folder with checkpoints and the trained file.
        on_epoch_end: takes the losses of each epoch, from 1; not of "auto", which trains several.
    """
    workflow, settings = workflow_of(experiment, key), experiment.train
    training, validation = data["training"], data["validation"]
    fit = workflow.fit_offline
    if isinstance(workflow, EnsembleWorkflow) and experiment.ensemble is not None:
        parts = [part_path(key, name) for name in experiment.members]
        apart = parts if all(part.is_file() for part in parts) else None
        fit = partial(workflow.fit_offline, data_reuse=experiment.ensemble.data_reuse, parts=apart)
    automatic = workflow.automatic if isinstance(workflow, BasicWorkflow) else None
    if automatic is not None:
        history = workflow.fit_offline(training, validation_data=validation)
    else:
        history = fit(
            training,
            settings.epochs,
            settings.batch_size,
            validation_data=validation,
            on_epoch_end=on_epoch_end,
        )
    model = work_folder() / key / f"{experiment.name}.safetensors"
    manifest: Manifest = {"key": key, "model": str(model), "history": history.history}
    if automatic is not None:
        manifest["choices"] = automatic.choices
    if isinstance(workflow, EnsembleWorkflow) and experiment.ensemble is not None:
        if experiment.ensemble.learn_weights:
            workflow.stack(validation)
            workflow.approximator.save(model)
        weights = workflow.approximator.mixture_weights()
        manifest["members"] = {
            name: {
                "numbers": {
                    "weight": float(weight),
                    "best_epoch": history.best_epoch_of(name),
                    "num_parameters": sum(parameter.numel() for parameter in member.parameters()),
                },
                "architecture": json.loads(member.architecture),
            }
            for (name, member), weight in zip(workflow.approximator.members.items(), weights, strict=True)
        }
    return manifest | {"sha256": file_sha256(model)}
