"""The workflow for one approximator."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch.distributions import Distribution

from sbi_models.adapters import ROLES, Adapter, default_adapter
from sbi_models.approximators import ContinuousApproximator, ScoringRuleApproximator
from sbi_models.arguments import known_arguments
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks import InferenceNetwork, ScoringRuleNetwork, SummaryNetwork, resolve
from sbi_models.simulators import Simulator, make_simulator
from sbi_models.workflows.settings import TrainingOptions, TrainingSettings
from sbi_models.workflows.workflow import Workflow

Names = str | Sequence[str]

_JOINING = ("concatenate", "keep")
"""Steps of an adapter that leave values as they are."""


@known_arguments
class BasicWorkflow(Workflow):
    """Amortized posterior estimation with one inference network and at most one summary network.

    Args:
        simulator: source of training data.
        inference_variables: raw names of what to infer.
        summary_variables: raw names of what goes through the summary network.
        inference_conditions: raw names of what goes straight to the inference network.
        inference_network: instance, class or name; with a `ScoringRuleNetwork` the approximator is a `ScoringRuleApproximator`. Or an
            approximator, such as a loaded one, to go on training: then roles, adapter and summary network are its own.
        summary_network: instance, class or name; required exactly if there are summary variables.
        adapter: from raw variables to roles; the default one concatenates the variables of each role along their last axis.
        summary_mask: name of the variable, raw or made by the adapter, that is 1 where an element of a set or series is there and 0 where
            it is padding or missing, shape (n, length); a dict of them by input for a network that takes several inputs.
        prior: torch distribution of the inferred variable, or a dict of them by variable: the default adapter keeps draws inside their
            support. Torch distributions among the functions of the simulator are taken as such anyway, with an adapter of your own
            for the variables that none of its steps changes.
        standardize: roles to standardise, or "all", or None.
        info: JSON that travels with the saved approximator.
        training: optimiser, learning rate, checkpoints, seed, and further settings of `TrainingSettings`.

    Raises:
        ConfigurationError: for arguments that are misspelt or do not fit together.
    """

    def __init__(
        self,
        simulator: Simulator | None = None,
        *,
        inference_variables: Names | None = None,
        summary_variables: Names | None = None,
        inference_conditions: Names | None = None,
        inference_network: InferenceNetwork | type[InferenceNetwork] | str | ContinuousApproximator = "coupling_flow",
        summary_network: SummaryNetwork | type[SummaryNetwork] | str | None = None,
        adapter: Adapter | None = None,
        summary_mask: str | Mapping[str, str] | None = None,
        prior: Distribution | Mapping[str, Distribution] | None = None,
        standardize: Names | None = "inference_variables",
        info: dict[str, Any] | None = None,
        **training: Unpack[TrainingOptions],
    ) -> None:
        settings = TrainingSettings(**training)
        roles = {
            "inference_variables": _names(inference_variables),
            "inference_conditions": _names(inference_conditions),
            "summary_variables": _names(summary_variables),
        }
        if isinstance(inference_network, ContinuousApproximator):
            _check_same_roles(roles, inference_network)
            super().__init__(approximator=inference_network, simulator=simulator, settings=settings)
            return
        _check_roles(roles)
        priors = _priors(prior, simulator, roles)
        if adapter is not None and isinstance(prior, Distribution | Mapping):
            raise ConfigurationError(
                "prior sets the bounds of the default adapter. With one of your own: adapter.constrain(name, prior=...)."
            )
        summary = None if summary_network is None else resolve(summary_network, SummaryNetwork)  # type: ignore[type-abstract]
        joined = roles if summary is None or not summary.input_names else roles | {"summary_variables": []}
        network: InferenceNetwork = resolve(inference_network, InferenceNetwork)  # type: ignore[type-abstract]
        kind = ScoringRuleApproximator if isinstance(network, ScoringRuleNetwork) else ContinuousApproximator
        approximator = kind(
            adapter=default_adapter(joined, priors) if adapter is None else _bounded(adapter, priors),
            roles=roles,
            inference_network=network,
            summary_network=summary,
            standardize=_standardised_roles(standardize),
            masks={"summary_variables": summary_mask} if isinstance(summary_mask, str) else summary_mask,
            info=info,
        )
        super().__init__(approximator=approximator, simulator=simulator, settings=settings)


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


def _priors(prior: Any, simulator: Simulator | None, roles: dict[str, list[str]]) -> dict[str, Distribution]:
    """Prior of each variable that has one, as a torch distribution."""
    inferred = roles["inference_variables"]
    if isinstance(prior, Distribution):
        if len(inferred) != 1:
            raise ConfigurationError(f"Expected prior as a dict of torch distributions, one for each of {inferred}, got one distribution.")
        prior = {inferred[0]: prior}
    for name, distribution in (prior or {}).items():
        if name not in inferred or not isinstance(distribution, Distribution):
            raise ConfigurationError(
                f"Expected prior as torch distributions of inferred variables, got {distribution!r} for {name!r}. {suggest(name, inferred)}"
            )
    known = {} if simulator is None else make_simulator(simulator).priors
    return {**known, **(prior or {})}


def _bounded(adapter: Adapter, priors: dict[str, Distribution]) -> Adapter:
    """The adapter of the user, after the bounds of those variables with a prior that none of its steps changes."""
    before = Adapter()
    for name, prior in priors.items():
        if not any(json.dumps(name) in json.dumps(step.config()) for step in adapter.transforms if step.kind not in _JOINING):
            before = before.constrain(name, prior=prior)
    return Adapter((*before.transforms, *adapter.transforms))


def _check_same_roles(roles: dict[str, list[str]], approximator: ContinuousApproximator) -> None:
    """Roles that are given beside an approximator must be its own."""
    for role, names in roles.items():
        own = approximator.roles.get(role, [])
        if names and names != own:
            raise ConfigurationError(f"The approximator has {role}={own}, got {names}. Leave {role} out, or pass a network.")


def _standardised_roles(standardize: Names | None) -> tuple[str, ...]:
    if standardize == "all":
        return ROLES
    roles = tuple(_names(standardize))
    for role in roles:
        if role not in ROLES:
            raise ConfigurationError(f"standardize names roles, not variables: {role!r} is not one. {suggest(role, (*ROLES, 'all'))}")
    return roles
