"""The workflow for one approximator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbi_models.adapters import ROLES, Adapter, default_adapter
from sbi_models.approximators import ContinuousApproximator, ScoringRuleApproximator
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks import InferenceNetwork, ScoringRuleNetwork, SummaryNetwork, resolve
from sbi_models.simulators import Simulator
from sbi_models.workflows.workflow import Workflow

Names = str | Sequence[str]


class BasicWorkflow(Workflow):
    """Amortized posterior estimation with one inference network and at most one summary network.

    Args:
        simulator: source of training data.
        inference_variables: raw names of what to infer.
        summary_variables: raw names of what goes through the summary network.
        inference_conditions: raw names of what goes straight to the inference network.
        inference_network: instance, class or name; with a `ScoringRuleNetwork` the approximator is a `ScoringRuleApproximator`.
        summary_network: instance, class or name; required exactly if there are summary variables.
        adapter: from raw variables to roles; the default one concatenates the variables of each role along their last axis.
        initial_learning_rate: peak of the warm-up and cosine schedule.
        checkpoint_filepath: a folder for the approximator and the state of its training after every epoch.
        checkpoint_name: stem of those files.
        save_best_only: keep the file of the approximator with the lowest loss (validation if there is one); in memory stays the last.
        standardize: roles to standardise, or "all", or None.
        restore: go on from the checkpoint if there is one.
        seed: of weights, order of data, and noise; None takes one from NumPy's global state.
        accelerator: "auto", "cpu", "gpu": where to train.
        threads: CPU threads of PyTorch while training. One is fastest for small networks, and makes the result the same on any number of
            cores.
        progress: show a progress bar; None follows the environment variable SBI_MODELS_PROGRESS.
        info: JSON that travels with the saved approximator.

    Raises:
        ConfigurationError: for arguments that are misspelt or do not fit together.
    """

    def __init__(
        self,
        simulator: Simulator | None = None,
        *,
        inference_variables: Names,
        summary_variables: Names | None = None,
        inference_conditions: Names | None = None,
        inference_network: InferenceNetwork | type[InferenceNetwork] | str = "flow_matching",
        summary_network: SummaryNetwork | type[SummaryNetwork] | str | None = None,
        adapter: Adapter | None = None,
        initial_learning_rate: float = 5e-4,
        checkpoint_filepath: str | Path | None = None,
        checkpoint_name: str = "model",
        save_best_only: bool = False,
        standardize: Names | None = "inference_variables",
        restore: bool = False,
        seed: int | None = None,
        accelerator: str = "auto",
        threads: int = 1,
        progress: bool | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        roles = {
            "inference_variables": _names(inference_variables),
            "inference_conditions": _names(inference_conditions),
            "summary_variables": _names(summary_variables),
        }
        _check_roles(roles)
        network: InferenceNetwork = resolve(inference_network, InferenceNetwork)  # type: ignore[type-abstract]
        kind = ScoringRuleApproximator if isinstance(network, ScoringRuleNetwork) else ContinuousApproximator
        approximator = kind(
            adapter=adapter or default_adapter(roles),
            roles=roles,
            inference_network=network,
            summary_network=None if summary_network is None else resolve(summary_network, SummaryNetwork),  # type: ignore[type-abstract]
            standardize=_standardised_roles(standardize),
            info=info,
        )
        super().__init__(
            approximator=approximator,
            simulator=simulator,
            initial_learning_rate=initial_learning_rate,
            checkpoint_filepath=checkpoint_filepath,
            checkpoint_name=checkpoint_name,
            save_best_only=save_best_only,
            restore=restore,
            seed=seed,
            accelerator=accelerator,
            threads=threads,
            progress=progress,
        )


def _names(names: Names | None) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _check_roles(roles: dict[str, list[str]]) -> None:
    if not roles["inference_variables"]:
        raise ConfigurationError("Expected at least one of inference_variables. Pass for instance inference_variables=['theta'].")
    if not roles["inference_conditions"] and not roles["summary_variables"]:
        raise ConfigurationError("Expected summary_variables or inference_conditions: a posterior is given data. Got neither.")
    names = [name for role in ROLES for name in roles[role]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"Expected each variable in one role, got {twice[0]!r} in two. Leave it out of one of them.")


def _standardised_roles(standardize: Names | None) -> tuple[str, ...]:
    if standardize == "all":
        return ROLES
    roles = tuple(_names(standardize))
    for role in roles:
        if role not in ROLES:
            raise ConfigurationError(f"standardize names roles, not variables: {role!r} is not one. {suggest(role, (*ROLES, 'all'))}")
    return roles
