"""Preparation of data for the networks of a member: building, checking, adapting and standardizing.

raw space (the user's) -> adapter -> adapted space -> standardizer -> standardized space, where the networks
live.
"""

import json

import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.adapters import ROLES, Adapter
from sbi_models.adapters.transforms import NanToNum
from sbi_models.approximators import validation
from sbi_models.approximators.base import Adapted, Member
from sbi_models.approximators.discrete import (
    DiscreteVariables,
    columns_of,
    declared_components,
    discrete_variables,
    with_found,
    without_discrete,
)
from sbi_models.approximators.rows import chunks, padded_tensors
from sbi_models.approximators.suitability import warn_of_unsuitable, warn_of_whole_numbers
from sbi_models.approximators.summary_inputs import SUMMARY, masked
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.padding import cut_to, row_lengths
from sbi_models.ragged import axes_of_any_length, is_ragged
from sbi_models.torch_defaults import single_precision
from sbi_models.types import Variables, VariablesLike

_ROWS_OF_SEVERAL_LENGTHS = 256
"""Most data sets of several lengths in one call of a summary network, if the user does not say."""


@known_arguments
class Preparation(Member):
    """A member that takes raw data to the inputs of its networks, and makes their layers."""

    @property
    def inference_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are inferred."""
        return tuple(self.roles["inference_variables"])

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are conditioned on, masks among them."""
        produced = {name for transform in self.adapter.transforms for name in transform.makes()}
        names = [name for role in ROLES[1:] for name in self.roles.get(role, ())]
        return tuple(
            dict.fromkeys([*names, *(name for name in self.inputs.masks.values() if name not in produced)])
        )

    @property
    def padded_inputs(self) -> dict[str, str]:
        """Prepared variables of any length, (n, length, ...), to those of their masks, (n, length)."""
        return {key: masked(key) for key in self.inputs.any_length}

    def _cut(self, prepared: dict[str, Tensor]) -> dict[str, Tensor]:
        """Prepared rows as long as their longest."""
        masks = self.padded_inputs
        return cut_to(prepared, masks, int(row_lengths(prepared, masks).max())) if masks else prepared

    @property
    def may_miss(self) -> frozenset[str]:
        """Raw names of the conditions that may hold NaN, since the adapter fills it."""
        filled = {transform.name for transform in self.adapter.transforms if isinstance(transform, NanToNum)}
        return frozenset(filled.intersection(self.condition_names))

    @property
    def has_draws(self) -> bool:
        """False where there is nothing to sample from, as with point estimates."""
        return self.inference_network.has_draws

    @property
    def has_density(self) -> bool:
        """False where `log_prob` has no answer."""
        return self.inference_network.has_density

    @property
    def architecture(self) -> str:
        """The networks, their arguments and widths, as JSON text."""
        networks = (self.inference_network, self.summary_network)
        return json.dumps([None if network is None else network.to_json() for network in networks])

    @property
    def specification(self) -> dict[str, str]:
        """Everything but the weights, by part, as JSON text: the same text means the same training."""
        parts = {
            "roles": self.roles,
            "adapter": self.adapter.to_json(),
            "standardize": self.standardizer.roles,
            "masks": self.inputs.masks,
        }
        return {name: json.dumps(part) for name, part in parts.items()} | {"networks": self.architecture}

    # ---- building and training ----------------------------------------------

    def build(self, data: VariablesLike, *, seed: int) -> None:
        """Learn shapes and moments from raw data and make the layers; a second call changes nothing.

        The initial weights are drawn from the seed.
        """
        if not self.is_built:
            self.build_from(self.adapted(data), seed=seed)

    def adapted(self, data: VariablesLike) -> Adapted:
        """Adapter fitted to raw data, and the data after it."""
        variables = validation.as_variables(
            data, self.inference_names + self.condition_names, may_miss=self.may_miss
        )
        axes = {name: axes_of_any_length(value) for name, value in variables.items() if is_ragged(value)}
        self.inputs.allow_any_length(axes, self.roles, self.summary_network)
        tensors, there = padded_tensors(variables, axes)
        adapter = self._with_found(variables, tensors).fitted(tensors)
        adapted = adapter.forward(tensors)
        shapes = {name: tuple(value.shape[1:]) for name, value in tensors.items()}
        inputs, masks = self.inputs.of(adapted, there)
        names = {key: self.roles.get(key) or [self.inputs.names.get(key, key)] for key in inputs}
        warn_of_unsuitable(
            without_discrete(adapter, inputs),
            masks,
            names,
            {name: shape[-1] for name, shape in shapes.items()},
            self.standardizer.roles,
        )
        if self.inference_network.has_draws:
            warn_of_whole_numbers(variables, self.inference_names, self._declared(adapter, variables))
        return Adapted(adapter, adapted, there, shapes, axes)

    def build_from(self, adapted: Adapted, *, seed: int) -> None:
        """`build`, after `adapted`; members of an ensemble share that part of the work."""
        self.adapter, self.any_length = adapted.adapter, adapted.any_length
        self.inputs.allow_any_length(self.any_length, self.roles, self.summary_network)
        inputs, masks = self.inputs.of(adapted.variables, adapted.there)
        with torch.random.fork_rng(devices=[]), single_precision():
            torch.manual_seed(seeding.derive(seed, "initial weights"))
            for network in (self.inference_network, self.summary_network):
                if network is not None:
                    network.float()  # of layers that a network of the user has made already
            self._make_layers(inputs)
        self.standardizer.fit(inputs, masks)
        self._start_discrete(inputs)
        if self.inference_network.starts_from_data and self.summary_network is None:
            start = {key: self.standardizer(key, value).to(torch.float32) for key, value in inputs.items()}
            self.inference_network.start_from(start["inference_variables"], self._conditions(start))
        self.shapes = dict(adapted.shapes)

    def _make_layers(self, adapted: dict[str, Tensor]) -> None:
        validation.check_vectors(adapted, self.roles)
        self.standardizer.declare({role: value.shape[-1] for role, value in adapted.items()})
        condition_dim = adapted["inference_conditions"].shape[-1] if "inference_conditions" in adapted else 0
        if self.summary_network is not None:
            shapes = {name: tuple(adapted[key].shape[1:]) for key, name in self.inputs.names.items()}
            self.summary_network.build(shapes.get(SUMMARY, shapes))
            condition_dim += self.summary_network.summary_dim
        width = adapted["inference_variables"].shape[-1]
        if discrete := columns_of(self.adapter, adapted):
            self.inference_network.build(width, condition_dim, discrete)
        else:
            self.inference_network.build(width, condition_dim)

    # ---- discrete variables -------------------------------------------------

    @property
    def discrete_variables(self) -> DiscreteVariables:
        """Discrete inference variables of a trained approximator, with the values of their categories."""
        return discrete_variables(self.adapter, self.inference_names, self.shapes)

    def _with_found(self, variables: Variables, tensors: dict[str, Tensor]) -> Adapter:
        """The adapter, with what is found discrete among raw variables, if the network takes it."""
        network = self.inference_network
        if not (network.takes_discrete and network.has_density):
            return self.adapter
        return with_found(self.adapter, {name: variables[name] for name in self.inference_names}, tensors)

    def _declared(self, adapter: Adapter, variables: Variables) -> set[tuple[str, int]]:
        """Inferred raw variables and components that an adapter declares discrete."""
        return declared_components(adapter, {name: variables[name] for name in self.inference_names})

    def _start_discrete(self, adapted: dict[str, Tensor]) -> None:
        """Leave discrete columns unstandardized, and let the network look at them."""
        if self.inference_network.discrete:
            role = "inference_variables"
            self.standardizer.leave(role, [column for column, *_ in self.inference_network.discrete])
            self.inference_network.learn_discrete(self.standardizer(role, adapted[role]).to(torch.float32))

    def prepare(self, data: VariablesLike, *, what: str = "data") -> dict[str, Tensor]:
        """Check, adapt and standardize raw data with all variables: float32 tensors by role.

        They are on the approximator's device.
        """
        return self._prepare(data, self.inference_names + self.condition_names, what)

    def _prepare(self, data: VariablesLike, names: tuple[str, ...], what: str) -> dict[str, Tensor]:
        self._check_built()
        variables = validation.as_variables(data, names, what=what, may_miss=self.may_miss)
        validation.check_shapes(variables, self.shapes, what, any_length=self.any_length)
        prepared = self._standardized(variables)
        validation.check_representable(prepared, what)
        return prepared

    def _standardized(self, variables: Variables) -> dict[str, Tensor]:
        """Checked raw variables to standardized float32 tensors by role, and to masks.

        Numbers too large for float32 are inf.
        """
        tensors, there = padded_tensors(variables, self.any_length, self.device)
        adapted, masks = self.inputs.of(self.adapter.forward(tensors), there)
        prepared = {key: self.standardizer(key, value).to(torch.float32) for key, value in adapted.items()}
        for key in self.inputs.any_length:
            away = ~masks[key]
            away = away.reshape(away.shape + (1,) * (prepared[key].ndim - away.ndim))
            prepared[key] = prepared[key].masked_fill(away, 0.0)
        return prepared | {masked(key): mask for key, mask in masks.items()}

    def prepare_conditions(self, conditions: VariablesLike) -> dict[str, Tensor]:
        """Check, adapt and standardize raw conditions (n, ...); further variables are left aside."""
        return self._prepare(conditions, self.condition_names, "conditions")

    def _conditions(self, prepared: dict[str, Tensor]) -> Tensor:
        """Conditions of the inference network, (n, condition_dim): direct ones and summaries side by side."""
        parts = [prepared["inference_conditions"]] if "inference_conditions" in prepared else []
        if self.summary_network is not None:
            parts.append(self.inputs.summaries(self.summary_network, prepared))
        return (
            torch.cat(parts, dim=-1)
            if parts
            else prepared["inference_variables"].new_zeros(len(prepared["inference_variables"]), 0)
        )

    @torch.no_grad()
    def given(self, conditions: VariablesLike, batch_size: int | None = None) -> Tensor:
        """Conditions of the inference network, (n, condition_dim), for raw conditions (n, ...).

        `batch_size` is the number of rows in one call of the summary network.
        """
        return self.conditions_of(self.prepare_conditions(conditions), batch_size)

    def conditions_of(self, prepared: dict[str, Tensor], batch_size: int | None = None) -> Tensor:
        """Conditions of the inference network, (n, condition_dim), for prepared conditions.

        `batch_size` is the number of rows in one call of the summary network. Data sets of several lengths
        are taken in the order of their lengths, in smaller blocks, so that little of a block is padding.
        """
        masks = self.padded_inputs
        lengths = row_lengths(prepared, masks) if masks else None
        if lengths is None or bool((lengths == lengths[0]).all()):
            return torch.cat(
                [self._conditions_of_rows(prepared, rows) for rows in chunks(prepared, batch_size)]
            )
        order = lengths.argsort(stable=True)
        size = _ROWS_OF_SEVERAL_LENGTHS
        size = size if batch_size is None else min(positive_int(batch_size, "batch_size"), size)
        blocks = torch.split(order, size)
        together = torch.cat([self._conditions_of_rows(prepared, rows) for rows in blocks])
        return together[order.argsort()]

    def _conditions_of_rows(self, prepared: dict[str, Tensor], rows: slice | Tensor) -> Tensor:
        return self._conditions(self._cut({name: values[rows] for name, values in prepared.items()}))

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.parameters()).device
