"""Ensemble: the mixture of several amortized posteriors with networks of their own.

p(theta | x) = sum_k w_k p_k(theta | x), with the weights of a call, or the learned ones, or equal ones.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, Self, overload

import numpy as np
from torch import Tensor, nn

from sbi_models import seeding
from sbi_models.approximators import files
from sbi_models.approximators.base import APPROXIMATORS, Approximator, Member
from sbi_models.approximators.certificates.calibration import EvaluationMode
from sbi_models.approximators.members import (
    check_density,
    check_members,
    check_same_moments,
    cross_log_densities,
    member_class,
    member_seed,
)
from sbi_models.approximators.mixture import (
    check_shrinkage,
    checked_weights,
    cross_validated_shrinkage,
    log_mixture,
    merged_order,
    stacked_weights,
    whole_shares,
)
from sbi_models.approximators.rows import by_component
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import ConfigurationError
from sbi_models.types import Array, FloatArray, Variables, VariablesLike

MemberWeights = Mapping[str, float]

_USUAL = "usual_disagreement.values"


@APPROXIMATORS.register("ensemble")
@known_arguments
class EnsembleApproximator(Approximator):
    """A mixture of amortized posteriors of the same variables.

    Args:
        members: names to approximators with draws and the same roles, adapter and masks; networks may differ.
        weights: weights of the mixture where a call gives none: members to numbers, normalized, 0 for those
            left out. None is equal weights.
        info: JSON that travels with the saved file.

    Raises:
        ConfigurationError: for fewer than two members, or members that do not fit together.

    >>> import numpy as np, sbi_models as bf
    >>> roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    >>> members = {
    ...     name: bf.approximators.ContinuousApproximator(
    ...         adapter=bf.adapters.default_adapter(roles),
    ...         roles=roles,
    ...         inference_network=bf.networks.CouplingFlow(depth=1, widths=(8,)),
    ...     )
    ...     for name in ("a", "b")
    ... }
    >>> ensemble = bf.approximators.EnsembleApproximator(members, weights={"a": 1, "b": 3})
    >>> theta = np.random.default_rng(1).normal(size=(64, 2))
    >>> ensemble.build({"theta": theta, "x": theta}, seed=1)
    >>> ensemble.sample(num_samples=4, conditions={"x": theta[:3]}, seed=2)["theta"].shape  # 1 of a, 3 of b
    (3, 4, 2)
    """

    kind = "ensemble"

    def __init__(
        self,
        members: Mapping[str, Member],
        *,
        weights: MemberWeights | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_members(members)
        self.names = list(members)
        self.networks = nn.ModuleList(members.values())
        self.info = files.as_json(dict(info or {}))
        self.weights = weights

    @property
    def weights(self) -> dict[str, float] | None:
        """Weights of the mixture by member, with the sum 1, or None as long as they are equal."""
        return None if self._weights is None else dict(self._weights)

    @weights.setter
    def weights(self, weights: MemberWeights | None) -> None:
        self._weights = None if weights is None else checked_weights(weights, self.names)

    @property
    def members(self) -> dict[str, Member]:
        """The members by name."""
        return dict(zip(self.names, self.networks, strict=True))  # type: ignore[arg-type]

    @property
    def prefixes(self) -> dict[str, str]:
        """What the names of each member's tensors begin with."""
        return {name: f"networks.{k}." for k, name in enumerate(self.names)}

    @property
    def _first(self) -> Member:
        return self.networks[0]  # type: ignore[return-value]

    @property
    def roles(self) -> dict[str, list[str]]:  # type: ignore[override]
        """Raw variable names of each role, those of every member."""
        return self._first.roles

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:  # type: ignore[override]
        """Shape of one row of each raw variable; empty before every member has seen data."""
        return self._first.shapes if all(member.is_built for member in self.members.values()) else {}

    @property
    def inference_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are inferred."""
        return self._first.inference_names

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are conditioned on, masks among them."""
        return self._first.condition_names

    @property
    def may_miss(self) -> frozenset[str]:
        """Raw names of the conditions that may hold NaN, since the adapter fills it."""
        return self._first.may_miss

    @property
    def any_length(self) -> dict[str, int]:  # type: ignore[override]
        """Raw conditions of any length, those of every member."""
        return self._first.any_length

    @property
    def has_draws(self) -> bool:
        """False for members that learned ratios; others without draws are refused."""
        return all(member.has_draws for member in self.members.values())

    @property
    def architecture(self) -> str:
        """The networks of each member, their arguments and widths, as JSON text."""
        return json.dumps({name: json.loads(member.architecture) for name, member in self.members.items()})

    @property
    def specification(self) -> dict[str, str]:
        """What each member is, but for its weights, by part, as JSON text."""
        return {
            f"{name}/{part}": text
            for name, member in self.members.items()
            for part, text in member.specification.items()
        }

    # ---- building and training ----------------------------------------------

    def build(self, data: VariablesLike, *, seed: int) -> None:
        """Build every member from the same data and moments, with initial weights of its own."""
        if self.is_built:
            check_same_moments(self.members)
            return
        adapted = self._first.adapted(data)
        for name, member in self.members.items():
            member.build_from(adapted, seed=member_seed(seed, name))

    def prepare(self, data: VariablesLike, *, what: str = "data") -> dict[str, Tensor]:
        """Raw data to standardized tensors, once for all members."""
        return self._first.prepare(data, what=what)

    # ---- inference ----------------------------------------------------------

    @overload
    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = ...,
        batch_size: int | None = ...,
        seed: int | None = ...,
        merge_members: Literal[True] = ...,
        member_weights: MemberWeights | None = ...,
    ) -> Variables: ...

    @overload
    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = ...,
        batch_size: int | None = ...,
        seed: int | None = ...,
        merge_members: bool,
        member_weights: MemberWeights | None = ...,
    ) -> Variables | dict[str, Variables]: ...

    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
        merge_members: bool = True,
        member_weights: MemberWeights | None = None,
    ) -> Variables | dict[str, Variables]:
        """Draw from the mixture, or from every member; further arguments as for one approximator.

        For every data set, the members' shares of the draws are their weights times num_samples, rounded by
        largest remainder, and the draws are shuffled.

        Args:
            merge_members: False gives num_samples draws of each member.
            member_weights: members to weights, normalized, 0 for those left out; by default the ensemble's
                own, learned or equal.

        Returns:
            Name to array of shape (num_datasets, num_samples, width), raw space; with merge_members=False,
            members to such dicts.
        """
        num_samples, seed = positive_int(num_samples, "num_samples"), seeding.resolve(seed)
        weights = self._weights_of_a_call(member_weights, merge_members=merge_members)
        self._certify_draws(conditions, seed)
        if not merge_members:
            return {
                name: member.sample(
                    num_samples=num_samples,
                    split=split,
                    conditions=conditions,
                    batch_size=batch_size,
                    seed=member_seed(seed, name),
                )
                for name, member in self.members.items()
            }
        rows = len(next(iter(self._first.prepare_conditions(conditions).values())))
        shares = whole_shares(weights, num_samples, rows)
        parts = [
            member.sample(
                num_samples=int(most),
                conditions=conditions,
                batch_size=batch_size,
                seed=member_seed(seed, name),
            )
            for (name, member), most in zip(self.members.items(), shares.max(axis=0), strict=True)
            if most
        ]
        order = merged_order(shares, seed)[:, :, None]
        draws = {
            variable: np.take_along_axis(
                np.concatenate([part[variable] for part in parts], axis=1), order, axis=1
            )
            for variable in self.inference_names
        }
        return by_component(draws) if split else draws

    @overload
    def log_prob(
        self,
        data: VariablesLike,
        *,
        batch_size: int | None = ...,
        merge_members: Literal[True] = ...,
        member_weights: MemberWeights | None = ...,
    ) -> Array: ...

    @overload
    def log_prob(
        self,
        data: VariablesLike,
        *,
        batch_size: int | None = ...,
        merge_members: bool,
        member_weights: MemberWeights | None = ...,
    ) -> Array | dict[str, Array]: ...

    def log_prob(
        self,
        data: VariablesLike,
        *,
        batch_size: int | None = None,
        merge_members: bool = True,
        member_weights: MemberWeights | None = None,
    ) -> Array | dict[str, Array]:
        """Log densities in nats of the mixture, log sum_k w_k p_k, of each row, raw space, (num_datasets,).

        With merge_members=False, that of each member by name; members without a density are left out.

        Raises:
            ConfigurationError: if a member with a weight above 0 has no density.
        """
        weights = self._weights_of_a_call(member_weights, merge_members=merge_members)
        if not merge_members:
            return {
                name: member.log_prob(data, batch_size=batch_size)
                for name, member in self.members.items()
                if member.has_density
            }
        used = {
            name: member
            for (name, member), weight in zip(self.members.items(), weights, strict=True)
            if weight > 0
        }
        check_density(used)
        columns = [member.log_prob(data, batch_size=batch_size) for member in used.values()]
        return log_mixture(np.stack(columns, axis=-1), weights[weights > 0])

    def stack(
        self, validation_data: VariablesLike, *, shrinkage: float | None = None, batch_size: int | None = None
    ) -> dict[str, float]:
        """Learn mixture weights by the mean log density of held-out data (n, ...), keep and return them.

        Args:
            validation_data: raw variables, of which no member has seen any.
            shrinkage: number of simulations that speak for equal weights beside the held-out ones. 0 is none:
                the weights with the highest held-out score, which a few hundred simulations do not suffice
                for. None finds it by cross-validation.
            batch_size: data sets in one call of the networks.

        Raises:
            ConfigurationError: if a member has no density, for its weight is for the user to choose; if
                shrinkage is negative.
        """
        check_shrinkage(shrinkage)
        check_density(self.members)
        columns = [
            member.log_prob(validation_data, batch_size=batch_size) for member in self.members.values()
        ]
        log_densities = np.stack(columns, axis=1)
        learned = stacked_weights(
            log_densities, cross_validated_shrinkage(log_densities) if shrinkage is None else float(shrinkage)
        )
        self.weights = {name: float(weight) for name, weight in zip(self.names, learned, strict=True)}
        return dict(self.weights)

    def mixture_weights(self) -> FloatArray:
        """The weights of the mixture in the order of the members, (members,)."""
        return self._weights_of_a_call(None, merge_members=True)

    def cross_log_prob(self, *, conditions: VariablesLike, num_samples: int, seed: int) -> FloatArray:
        """Log densities of every member at draws of every member: (num_datasets, from, num_samples, of).

        They are in nats, standardized space.
        """
        with EvaluationMode(self):
            return cross_log_densities(
                self.members, conditions=conditions, num_samples=num_samples, seed=seed
            )

    def estimate(
        self, conditions: VariablesLike, *, split: bool = False, batch_size: int | None = None
    ) -> NoReturn:
        """Estimates are those of a member: `approximator.members[name].estimate(...)`.

        Raises:
            ConfigurationError: always.
        """
        del conditions, split, batch_size
        raise ConfigurationError(
            "An ensemble has draws and densities of its mixture, not estimates. Ask a member: "
            f"approximator.members[{self.names[0]!r}].estimate(conditions=...)."
        )

    def _weights_of_a_call(self, weights: MemberWeights | None, *, merge_members: bool) -> FloatArray:
        """Weights in the order of the members."""
        self._check_built()
        if weights is not None and not merge_members:
            raise ConfigurationError(
                "member_weights are those of the mixture: expected merge_members=True with them, got False."
            )
        chosen = self.weights if weights is None else checked_weights(weights, self.names)
        return np.array([1 / len(self.names) if chosen is None else chosen[name] for name in self.names])

    # ---- files --------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        parts = self.members.items()
        members = [{"name": k, "kind": part.kind, "settings": part._settings()} for k, part in parts]
        return {"members": members, "weights": self.weights, "info": self.info}

    @classmethod
    def from_settings(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The ensemble of a file."""
        members = {}
        for number, entry in enumerate(settings["members"]):
            prefix = f"networks.{number}."
            part = {k[len(prefix) :]: value for k, value in tensors.items() if k.startswith(prefix)}
            members[entry["name"]] = member_class(entry["kind"]).from_settings(entry["settings"], part)
        ensemble = cls(members, weights=settings["weights"], info=settings["info"])
        ensemble.usual_disagreement.load_state_dict({"values": tensors[_USUAL]} if _USUAL in tensors else {})
        return ensemble.eval()
