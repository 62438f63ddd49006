"""Construction of approximators from the arguments of a workflow: roles, adapter, priors, masks."""

import json
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from torch.distributions import Distribution

from sbi_models.adapters import ROLES, Adapter, default_adapter
from sbi_models.approximators import Approximator, ContinuousApproximator, ScoringRuleApproximator
from sbi_models.errors import ConfigurationError, suggest
from sbi_models.networks import InferenceNetwork, ScoringRuleNetwork, SummaryNetwork, resolve
from sbi_models.simulators import Simulator, make_simulator
from sbi_models.torch_defaults import in_double_precision
from sbi_models.training.settings import TrainingOptions
from sbi_models.workflows.missing_values import MissingValues

Names = str | Sequence[str]

DEFAULT_SUMMARY_NETWORK = "time_series_transformer"
"""Default for ensembles: it takes sets and series of vectors, and loses neither values nor order."""

_JOINING = ("concatenate", "keep")
"""Steps of an adapter that leave values as they are."""

InferenceNetworkLike = InferenceNetwork | type[InferenceNetwork] | str
SummaryNetworkLike = SummaryNetwork | type[SummaryNetwork] | str


class BasicOptions(TrainingOptions, total=False):
    """Keyword arguments of `BasicWorkflow` besides its simulator and inference network."""

    inference_variables: Names | None
    summary_variables: Names | None
    inference_conditions: Names | None
    summary_network: SummaryNetworkLike | None
    adapter: Adapter | None
    summary_mask: str | Mapping[str, str] | None
    missing: Mapping[str, str] | None
    prior: Distribution | Mapping[str, Distribution] | None
    standardize: Names | None
    info: dict[str, Any] | None


class Recipe:
    """Makes approximators with the same roles, adapter and masks from networks.

    Arguments as for `BasicWorkflow`.
    """

    def __init__(
        self,
        roles: dict[str, list[str]],
        simulator: Simulator | None,
        *,
        adapter: Adapter | None,
        summary_mask: str | Mapping[str, str] | None,
        missing: Mapping[str, str] | None,
        prior: Distribution | Mapping[str, Distribution] | None,
        standardize: Names | None,
    ) -> None:
        _check_roles(roles)
        priors = priors_of(prior, simulator, roles)
        if adapter is not None and isinstance(prior, Distribution | Mapping):
            raise ConfigurationError(
                "prior sets the bounds of the default adapter. With one of your own: "
                "adapter.constrain(name, prior=...)."
            )
        if adapter is not None and not adapter.transforms:
            raise ConfigurationError(
                "Expected an adapter with steps, got an empty one. Adapters do not change; their methods "
                "return new ones: adapter = adapter.constrain(...). Leave adapter out for the default one."
            )
        if adapter is not None:
            adapter.check()
        self.roles, self.priors = roles, priors
        self.adapter = None if adapter is None else bounded(adapter, priors)
        self.standardize = standardize
        self.missing = MissingValues(missing, roles, self.adapter, summary_mask)

    def approximator(
        self,
        inference_network: InferenceNetworkLike,
        summary_network: SummaryNetworkLike | None,
        info: dict[str, Any] | None = None,
        kind: type[ContinuousApproximator] | None = None,
    ) -> ContinuousApproximator:
        """Approximator with clones of the networks.

        `kind` is its class; None takes the one that goes with the inference network.
        """
        summary = None if summary_network is None else resolve(summary_network, SummaryNetwork)  # type: ignore[type-abstract]
        joined = (
            self.roles
            if summary is None or not summary.input_names
            else self.roles | {"summary_variables": []}
        )
        network: InferenceNetwork = resolve(inference_network, InferenceNetwork)  # type: ignore[type-abstract]
        if kind is None:
            kind = (
                ScoringRuleApproximator if isinstance(network, ScoringRuleNetwork) else ContinuousApproximator
            )
        own = self.adapter or default_adapter(self.missing.with_masks(joined), self.priors)
        adapter, masks = self.missing.in_adapter(own, () if summary is None else summary.input_names)
        return kind(
            adapter=adapter,
            roles=self.roles,
            inference_network=network,
            summary_network=summary,
            standardize=_standardized_roles(self.standardize),
            masks=masks,
            info=info,
        )


def roles_of(
    inference_variables: Names | None, inference_conditions: Names | None, summary_variables: Names | None
) -> dict[str, list[str]]:
    """Raw names by role."""
    return {
        "inference_variables": _names(inference_variables),
        "inference_conditions": _names(inference_conditions),
        "summary_variables": _names(summary_variables),
    }


def _names(names: Names | None) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _check_roles(roles: dict[str, list[str]]) -> None:
    if not roles["inference_variables"]:
        raise ConfigurationError(
            "Expected at least one of inference_variables. Pass for instance inference_variables=['theta']."
        )
    if not roles["inference_conditions"] and not roles["summary_variables"]:
        raise ConfigurationError(
            "Expected summary_variables or inference_conditions: a posterior is given data. Got neither."
        )
    names = [name for role in ROLES for name in roles[role]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"Expected each variable in one role, got {twice[0]!r} in two. Leave it out of one of them."
        )


def priors_of(
    prior: Any, simulator: Simulator | None, roles: dict[str, list[str]]
) -> dict[str, Distribution]:
    """Prior of each variable that has one, as a torch distribution."""
    inferred = roles["inference_variables"]
    if isinstance(prior, Distribution):
        if len(inferred) != 1:
            raise ConfigurationError(
                f"Expected prior as a dict of torch distributions, one for each of {inferred}, got "
                "one distribution."
            )
        prior = {inferred[0]: prior}
    for name, distribution in (prior or {}).items():
        if name not in inferred or not isinstance(distribution, Distribution):
            raise ConfigurationError(
                "Expected prior as torch distributions of inferred variables, got "
                f"{distribution!r} for {name!r}. {suggest(name, inferred)}"
            )
    known = {} if simulator is None else make_simulator(simulator).priors
    return {
        name: in_double_precision(distribution) for name, distribution in {**known, **(prior or {})}.items()
    }


def bounded(adapter: Adapter, priors: Mapping[str, Distribution]) -> Adapter:
    """Adapter of the user after the bounds of those variables with a prior that it does not change."""
    before = Adapter()
    for name, prior in priors.items():
        if not changes(adapter, name):
            before = before.constrain(name, prior=prior)
    return Adapter((*before.transforms, *adapter.transforms))


def changes(adapter: Adapter, name: str) -> bool:
    """Whether a step of an adapter changes the values of a variable."""
    return any(
        json.dumps(name) in json.dumps(step.config())
        for step in adapter.transforms
        if step.kind not in _JOINING
    )


def check_same_roles(roles: dict[str, list[str]], approximator: Approximator) -> None:
    """Roles that are given beside an approximator must be its own."""
    for role, names in roles.items():
        present = approximator.roles.get(role, [])
        if names and names != present:
            raise ConfigurationError(
                f"The approximator has {role}={present}, got {names}. Leave {role} out, or pass a network."
            )


def _standardized_roles(standardize: Names | None) -> tuple[str, ...]:
    if standardize == "all":
        return ROLES
    roles = tuple(_names(standardize))
    for role in roles:
        if role not in ROLES:
            raise ConfigurationError(
                f"standardize names roles, not variables: {role!r} is not one. "
                f"{suggest(role, (*ROLES, 'all'))}"
            )
    return roles


def networks_by_member(
    networks: InferenceNetworkLike | Mapping[str, InferenceNetworkLike], ensemble_size: int | None
) -> dict[str, InferenceNetworkLike]:
    """Inference networks by member."""
    if isinstance(networks, Mapping):
        if ensemble_size is not None:
            raise ConfigurationError(
                "ensemble_size goes with one inference network; a dict of them says how many "
                "there are. Leave it out."
            )
        return dict(networks)
    try:
        size = index(ensemble_size)  # type: ignore[arg-type]
    except TypeError:
        size = 0
    if isinstance(ensemble_size, bool) or size < 2:
        raise ConfigurationError(
            "Expected ensemble_size as an integer of at least 2 with one inference network, got "
            f"{ensemble_size!r}. Use BasicWorkflow for one member, or pass a dict of members to networks."
        )
    return {str(k): networks for k in range(size)}


def summary_networks_by_member(
    networks: SummaryNetworkLike | Mapping[str, SummaryNetworkLike] | None,
    members: list[str],
    *,
    needed: bool,
) -> dict[str, SummaryNetworkLike | None]:
    """Summary networks by member."""
    if not isinstance(networks, Mapping):
        return dict.fromkeys(
            members, networks if networks is not None or not needed else DEFAULT_SUMMARY_NETWORK
        )
    for name in networks:
        if name not in members:
            raise ConfigurationError(
                f"There is no member {name!r} for a summary network. {suggest(str(name), members)}"
            )
    missing = [name for name in members if name not in networks]
    if missing:
        raise ConfigurationError(
            f"Expected a summary network for every member, got none for {missing[0]!r}. Pass one "
            "more, or one network for all."
        )
    return dict(networks)
