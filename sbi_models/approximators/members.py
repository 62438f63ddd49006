"""Ensemble members: what they have in common, their seeds, and densities at each other's draws."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.base import ALONE, APPROXIMATORS, Member
from sbi_models.errors import ConfigurationError
from sbi_models.networks import RatioNetwork
from sbi_models.networks.noise import Generators
from sbi_models.types import FloatArray, VariablesLike

_ROWS_PER_CALL = 2**15

Members = Mapping[str, Member]

KINDS_OF_LOSSES = ("loss", "val_loss")


def member_seed(seed: int, name: str) -> int:
    """Seed of a member's initial weights, noise and draws; the seed itself without an ensemble."""
    return seed if name == ALONE else seeding.derive(seed, "member", name)


def member_class(kind: str) -> type[Member]:
    """Class of the members of a kind; ConfigurationError for a kind that is unknown or cannot be one."""
    registered = APPROXIMATORS.named(kind)
    if not issubclass(registered, Member):
        raise ConfigurationError(f"Expected an approximator that can be a member, got one of kind {kind!r}.")
    return registered


def loss_name(member: str, kind: str) -> str:
    """The name in the history of a member's "loss" or "val_loss"."""
    return kind if member == ALONE else f"{member}/{kind}"


def mean_losses(
    losses: Mapping[str, float], members: Sequence[str], stopped: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Means over members of losses by `loss_name`, as far as there are some.

    Members that have stopped count with the losses that they stopped at.
    """
    means = {}
    for kind in KINDS_OF_LOSSES:
        values = [losses.get(loss_name(name, kind), stopped.get(name, {}).get(kind)) for name in members]
        known = [value for value in values if value is not None]
        if known:
            means[kind] = sum(known) / len(known)
    return means


def check_members(members: Members) -> None:
    """Raise ConfigurationError unless two or more members with draws, or ratios, fit together and share no
    network."""
    if not isinstance(members, Mapping) or len(members) < 2:
        raise ConfigurationError(
            "Expected an ensemble of at least two members, a dict of names to approximators, got "
            f"{members!r}."
        )
    first = next(iter(members.values()))
    for name, member in members.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ConfigurationError(f"Expected names of members as text without '/', got {name!r}.")
        if not isinstance(member, Member):
            raise ConfigurationError(
                f"Expected a ContinuousApproximator for member {name!r}, got {type(member).__name__}."
            )
        if not (member.has_draws or isinstance(member.inference_network, RatioNetwork)):
            raise ConfigurationError(
                f"Expected members with posterior draws, got only point estimates for {name!r}. "
                "Add a parametric rule such as 'mv_normal'."
            )
        parts = {
            "roles": (member.roles, first.roles),
            "inputs of summary networks": (member.inputs.names, first.inputs.names),
            "masks": (member.inputs.masks, first.inputs.masks),
        }
        for what, (got, expected) in parts.items():
            if got != expected:
                raise ConfigurationError(
                    f"Expected the same {what} in every member, {expected}, got {got} in {name!r}."
                )
        if member.adapter.to_json() != first.adapter.to_json():
            raise ConfigurationError(
                f"Expected the same adapter in every member, got another one in {name!r}."
            )
    if len({member.is_built for member in members.values()}) > 1:
        raise ConfigurationError(
            "Expected members that have all been trained, or none of them, got some of each."
        )
    if len({id(part) for member in members.values() for part in member.modules()}) < sum(
        len(list(m.modules())) for m in members.values()
    ):
        raise ConfigurationError(
            "Expected members with networks of their own, got some that share one. Pass network.clone()."
        )


def check_same_moments(members: Members) -> None:
    """Raise ConfigurationError unless all were built from the same data."""
    first = next(iter(members))
    moments = members[first].standardizer.state_dict()
    for name, member in members.items():
        for key, value in member.standardizer.state_dict().items():
            if not torch.equal(value, moments.get(key, value)):
                raise ConfigurationError(
                    f"Expected members that were built from the same data, got other moments in {name!r} "
                    f"than in {first!r}. Such an ensemble can sample, but not train: make an "
                    "EnsembleWorkflow of the networks and train that."
                )


def check_density(members: Members) -> None:
    """Raise ConfigurationError unless all have a density."""
    for name, member in members.items():
        if not member.has_density:
            raise ConfigurationError(
                f"Expected members with a density, got none for {name!r} "
                f"({type(member.inference_network).__name__}). Leave it out of member_weights, or set "
                "approximator.weights without it."
            )


@torch.no_grad()
def cross_log_densities(
    members: Members, *, conditions: VariablesLike, num_samples: int, seed: int
) -> FloatArray:
    """Log densities of every member at draws of every member: (num_datasets, from, num_samples, of).

    They are in nats, standardized space.
    """
    check_density(members)
    columns: list[list[Tensor]] = []
    given = {name: member.given(conditions) for name, member in members.items()}
    for name, member in members.items():
        columns.append([])
        rows = range(len(given[name]))
        generators: Generators = [
            torch.Generator().manual_seed(seeding.derive(member_seed(seed, name), "sampling", r))
            for r in rows
        ]
        theta = member.inference_network.sample(num_samples, given[name], generators).flatten(0, 1)
        for other, judge in members.items():
            repeated = given[other].repeat_interleave(num_samples, dim=0)
            parts = zip(
                torch.split(theta, _ROWS_PER_CALL), torch.split(repeated, _ROWS_PER_CALL), strict=True
            )
            columns[-1].append(
                torch.cat([judge.inference_network.log_prob(t, c) for t, c in parts]).reshape(-1, num_samples)
            )
    stacked = torch.stack([torch.stack(column, dim=-1) for column in columns], dim=1)
    return np.asarray(stacked.to(torch.float64).cpu().numpy())
