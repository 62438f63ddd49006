"""The approximator of a posterior with a density: raw data in, raw draws and log densities out.

raw space (the user's) -> adapter -> adapted space -> standardizer -> standardized space, where the networks
live.
"""

import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.adapters import ROLES, Adapter
from sbi_models.adapters.transforms import NanToNum
from sbi_models.approximators import files
from sbi_models.approximators import validation as intake
from sbi_models.approximators.base import ALONE, Approximator
from sbi_models.approximators.certificates.novelty import Novelty
from sbi_models.approximators.rows import as_tensors, by_component, chunks
from sbi_models.approximators.standardizer import Standardizer
from sbi_models.approximators.suitability import warn_of_unsuitable, warn_of_whole_numbers
from sbi_models.approximators.summary_inputs import SUMMARY, SummaryInputs, masked
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import ConfigurationError
from sbi_models.networks import InferenceNetwork, SummaryNetwork, network_from_json
from sbi_models.networks.base import Drawn
from sbi_models.networks.noise import Generators
from sbi_models.progress import Advance, progress_bar
from sbi_models.torch_defaults import single_precision
from sbi_models.types import Array, Estimates, Variables, VariablesLike

_DRAWS_PER_BLOCK = 8192
"""Draws of one data set that share a random stream; part of the meaning of a seed, so never change it."""

_DRAWS_BEFORE_PROGRESS, _ROWS_PER_CALL = 200_000, 2**15
"""Network rows of one call bound memory, and do not change results beyond rounding."""


@known_arguments
class ContinuousApproximator(Approximator):
    """An amortized posterior: adapter, standardizer, summary network and inference network.

    Args:
        adapter: adapter from raw variables to the roles.
        roles: raw variable names of each role; only `inference_variables` must be there.
        inference_network: the conditional density.
        summary_network: takes the role `summary_variables`; required exactly if there are some.
        standardize: roles whose adapted values are standardized with frozen moments.
        masks: masks of summary inputs: "summary_variables", or a name of the inputs of a network that takes
            several, to the variable, raw or made by the adapter, that is 1 where an element is there and 0
            where it is padding or missing: (n, length), or (n, length, features), where an element is there
            if all its features are.
        info: JSON that travels with the saved file, for instance the names and units of parameters.
    """

    kind = "continuous"

    def __init__(
        self,
        *,
        adapter: Adapter,
        roles: dict[str, list[str]],
        inference_network: InferenceNetwork,
        summary_network: SummaryNetwork | None = None,
        standardize: tuple[str, ...] = ("inference_variables",),
        masks: Mapping[str, str] | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if bool(roles.get("summary_variables")) != (summary_network is not None):
            raise ConfigurationError(
                "summary_variables and summary_network go together: expected both or neither, got "
                f"summary_variables={roles.get('summary_variables')} and summary_network={summary_network}. "
                "Variables that need no summary are inference_conditions."
            )
        self.roles = {role: list(names) for role, names in roles.items() if names}
        self.inference_network = inference_network
        self.summary_network = summary_network
        self.inputs = SummaryInputs(summary_network, masks or {})
        adapter.check_kept()
        self.adapter = adapter.route(
            {role: names for role, names in self.roles.items() if role != SUMMARY or self.inputs.is_one}
        )
        self.standardizer = Standardizer(
            tuple(part for role in standardize for part in (self.inputs.names if role == SUMMARY else [role]))
        )
        self.info = files.as_json(dict(info or {}))
        self.novelty = Novelty()
        for network in (inference_network, summary_network):
            if network is not None:
                files.as_json(network.to_json())
        self.shapes: dict[str, tuple[int, ...]] = {}

    @property
    def members(self) -> "dict[str, ContinuousApproximator]":
        """Itself, alone."""
        return {ALONE: self}

    @property
    def prefixes(self) -> dict[str, str]:
        """None, for itself."""
        return {ALONE: ""}

    @property
    def inference_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are inferred."""
        return tuple(self.roles["inference_variables"])

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Raw names of the variables that are conditioned on, masks among them."""
        made = {name for transform in self.adapter.transforms for name in transform.makes()}
        names = [name for role in ROLES[1:] for name in self.roles.get(role, ())]
        return tuple(
            dict.fromkeys([*names, *(name for name in self.inputs.masks.values() if name not in made)])
        )

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
        """What it is, but for its weights, by part, as JSON text: two with the same one learn the same
        thing."""
        parts = {
            "roles": self.roles,
            "adapter": self.adapter.to_json(),
            "standardize": self.standardizer.roles,
            "masks": self.inputs.masks,
        }
        return {name: json.dumps(part) for name, part in parts.items()} | {"networks": self.architecture}

    # ---- building and training ----------------------------------------------

    def build(self, data: VariablesLike, *, seed: int) -> None:
        """Learn shapes and moments from raw data and make the layers, their weights drawn from the seed; a
        second call changes nothing."""
        if not self.is_built:
            self.build_from(*self.adapted(data), seed=seed)

    def adapted(self, data: VariablesLike) -> tuple[Adapter, dict[str, Tensor], dict[str, tuple[int, ...]]]:
        """The adapter fitted to raw data, the data after it, and the shape of one raw row of each variable:
        what to build from."""
        variables = intake.as_variables(
            data, self.inference_names + self.condition_names, may_miss=self.may_miss
        )
        tensors = as_tensors(variables)
        adapter = self.adapter.fitted(tensors)
        adapted = adapter.forward(tensors)
        shapes = {name: value.shape[1:] for name, value in variables.items()}
        inputs, masks = self.inputs.of(adapted)
        names = {key: self.roles.get(key) or [self.inputs.names.get(key, key)] for key in inputs}
        warn_of_unsuitable(
            inputs, masks, names, {name: shape[-1] for name, shape in shapes.items()}, self.standardizer.roles
        )
        if self.inference_network.has_draws:
            warn_of_whole_numbers(variables, self.inference_names)
        return adapter, adapted, shapes

    def build_from(
        self, adapter: Adapter, adapted: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], *, seed: int
    ) -> None:
        """`build`, after `adapted`; members of an ensemble share that part of the work."""
        self.adapter = adapter
        inputs, masks = self.inputs.of(adapted)
        with torch.random.fork_rng(devices=[]), single_precision():
            torch.manual_seed(seeding.derive(seed, "initial weights"))
            for network in (self.inference_network, self.summary_network):
                if network is not None:
                    network.float()  # of layers that a network of the user has made already
            self._make_layers(inputs)
        self.standardizer.fit(inputs, masks)
        if self.inference_network.starts_from_data and self.summary_network is None:
            start = {key: self.standardizer(key, value).to(torch.float32) for key, value in inputs.items()}
            self.inference_network.start_from(start["inference_variables"], self._conditions(start))
        self.shapes = dict(shapes)

    def _make_layers(self, adapted: dict[str, Tensor]) -> None:
        intake.check_vectors(adapted, self.roles)
        self.standardizer.declare({role: value.shape[-1] for role, value in adapted.items()})
        condition_dim = adapted["inference_conditions"].shape[-1] if "inference_conditions" in adapted else 0
        if self.summary_network is not None:
            shapes = {name: tuple(adapted[key].shape[1:]) for key, name in self.inputs.names.items()}
            self.summary_network.build(shapes.get(SUMMARY, shapes))
            condition_dim += self.summary_network.summary_dim
        self.inference_network.build(adapted["inference_variables"].shape[-1], condition_dim)

    def prepare(self, data: VariablesLike, *, what: str = "data") -> dict[str, Tensor]:
        """Raw data with all variables, checked, to standardized float32 tensors by role, on the
        approximator's device."""
        return self._prepare(data, self.inference_names + self.condition_names, what)

    def _prepare(self, data: VariablesLike, names: tuple[str, ...], what: str) -> dict[str, Tensor]:
        self._check_built()
        variables = intake.as_variables(data, names, what=what, may_miss=self.may_miss)
        intake.check_shapes(variables, self.shapes, what)
        prepared = self._standardized(variables)
        intake.check_representable(prepared, what)
        return prepared

    def _standardized(self, variables: Variables) -> dict[str, Tensor]:
        """Checked raw variables to standardized float32 tensors by role, inf where they are too large for
        that, and to masks."""
        adapted, masks = self.inputs.of(self.adapter.forward(as_tensors(variables, self._device)))
        prepared = {key: self.standardizer(key, value).to(torch.float32) for key, value in adapted.items()}
        return prepared | {masked(key): mask for key, mask in masks.items()}

    def prepare_conditions(self, conditions: VariablesLike) -> dict[str, Tensor]:
        """Raw conditions (n, ...), checked, to standardized float32 tensors by role; further variables are
        left aside."""
        return self._prepare(conditions, self.condition_names, "conditions")

    def loss(self, prepared: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """Training loss of each row of a prepared batch, shape (n,)."""
        return self.inference_network.loss(
            prepared["inference_variables"], self._conditions(prepared), generator
        )

    def draw(self, prepared: dict[str, Tensor], generator: torch.Generator | None = None) -> Drawn:
        """The random numbers of the loss of a prepared batch; see `InferenceNetwork.draw`."""
        return self.inference_network.draw(prepared["inference_variables"], generator)

    def loss_given(self, prepared: dict[str, Tensor], drawn: Drawn) -> Tensor:
        """The loss, shape (n,), as a function of its random numbers."""
        return self.inference_network.loss_given(
            prepared["inference_variables"], self._conditions(prepared), drawn
        )

    def _conditions(self, prepared: dict[str, Tensor]) -> Tensor:
        """What the inference network is conditioned on: direct conditions and summaries side by side, (n,
        condition_dim)."""
        parts = [prepared["inference_conditions"]] if "inference_conditions" in prepared else []
        if self.summary_network is not None:
            parts.append(self.inputs.summaries(self.summary_network, prepared))
        return (
            torch.cat(parts, dim=-1)
            if parts
            else prepared["inference_variables"].new_zeros(len(prepared["inference_variables"]), 0)
        )

    # ---- inference ----------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        *,
        num_samples: int,
        conditions: VariablesLike,
        split: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> Variables:
        """Draw from the posterior of every data set.

        Args:
            num_samples: draws for each data set.
            conditions: raw variables of shape (num_datasets, ...); further ones, such as the parameters of a
                test batch, are left aside.
            split: return each component of a variable of width d as a variable of its own, name_0 ...
                name_(d-1), width 1.
            batch_size: data sets in one call of the networks; None chooses by memory. Results do not depend
                on it beyond rounding.
            seed: None takes one from NumPy's global state.

        Returns:
            Name to array of shape (num_datasets, num_samples, width), raw space.
        """
        num_samples, seed = positive_int(num_samples, "num_samples"), seeding.resolve(seed)
        was_training = self.training
        self.eval()
        standardized = self.standardized_draws(
            num_samples, self.given(conditions, batch_size), batch_size, seed
        )
        self.train(was_training)
        draws = self._to_raw(standardized)
        self._certify_draws(conditions, seed)
        return by_component(draws) if split else draws

    @torch.no_grad()
    def given(self, conditions: VariablesLike, batch_size: int | None = None) -> Tensor:
        """What the inference network is conditioned on, (n, condition_dim), for raw conditions (n, ...),
        `batch_size` rows at a time."""
        return self.conditions_of(self.prepare_conditions(conditions), batch_size)

    def conditions_of(self, prepared: dict[str, Tensor], batch_size: int | None = None) -> Tensor:
        """What the inference network is conditioned on, (n, condition_dim), for prepared conditions,
        `batch_size` rows at a time."""
        return torch.cat(
            [
                self._conditions({k: v[rows] for k, v in prepared.items()})
                for rows in chunks(prepared, batch_size)
            ]
        )

    def standardized_draws(
        self, num_samples: int, given: Tensor, batch_size: int | None, seed: int
    ) -> Tensor:
        """Standardized draws (n, num_samples, d) for conditions (n, condition_dim) of the network."""
        parts, total = [], num_samples * len(given)
        with progress_bar("sample", total, show=None if total > _DRAWS_BEFORE_PROGRESS else False) as advance:
            for block, start in enumerate(range(0, num_samples, _DRAWS_PER_BLOCK)):
                parts.append(
                    self._draw(
                        min(_DRAWS_PER_BLOCK, num_samples - start), given, batch_size, (seed, block), advance
                    )
                )
        standardized = torch.cat(parts, dim=1)
        intake.check_network_output(standardized.isfinite().flatten(1).all(dim=1), "draws")
        return standardized

    def _draw(
        self,
        num_samples: int,
        given: Tensor,
        batch_size: int | None,
        stream: tuple[int, int],
        advance: Advance,
    ) -> Tensor:
        seed, block = stream
        at_once = (
            positive_int(batch_size, "batch_size")
            if batch_size is not None
            else max(1, _ROWS_PER_CALL // num_samples)
        )
        parts = []
        for start in range(0, len(given), at_once):
            rows = range(start, min(start + at_once, len(given)))
            generators: Generators = [
                torch.Generator().manual_seed(seeding.derive(seed, "sampling", row, block)) for row in rows
            ]
            parts.append(
                self.inference_network.sample(num_samples, given[start : start + at_once], generators)
            )
            advance(num_samples * len(rows))
        return torch.cat(parts)

    def _to_raw(self, standardized: Tensor) -> Variables:
        """Standardized draws (n, S, d) to raw variables {name: (n, S, width)}."""
        n, s, _ = standardized.shape
        raw = self.raw_of(standardized.flatten(0, 1).to(torch.float64))
        values = {name: raw[name].reshape(n, s, -1).cpu().numpy() for name in self.inference_names}
        intake.check_overflow(values)
        return values

    def answer(self, given: Tensor) -> dict[str, Tensor]:
        """One draw for each row of what the inference network is conditioned on, raw space, name to (n, ...):
        whether it works at all."""
        return self.raw_of(self.standardized_draws(1, given, None, seed=0).flatten(0, 1).to(torch.float64))

    def raw_of(self, standardized: Tensor) -> dict[str, Tensor]:
        """Standardized parameters (n, d) to raw variables, name to (n, ...), with gradients."""
        raw = self.adapter.inverse(
            {"inference_variables": self.standardizer.inverse("inference_variables", standardized)}
        )
        return {name: raw[name] for name in self.inference_names}

    def log_prob(self, data: VariablesLike, *, batch_size: int | None = None) -> Array:
        """Log density in nats of the parameters given the conditions of each row of `data`, in raw space,
        shape (num_datasets,).

        It is -inf for parameters outside the support of the adapter, and for those so far out that float32
        cannot hold it.
        """
        self._check_built()
        names = self.inference_names + self.condition_names
        variables = intake.as_variables(data, names, may_miss=self.may_miss)
        intake.check_shapes(variables, self.shapes)
        inside = self.adapter.inside(as_tensors(variables), self.inference_names).numpy()
        log_prob = np.full(len(inside), -np.inf)
        if not inside.all():
            self._prepare(
                variables, self.condition_names, "data"
            )  # conditions that do not fit are an error in these rows, too
        if inside.any():
            log_prob[inside] = self._log_prob(
                {name: value[inside] for name, value in variables.items()}, batch_size
            )
        return log_prob

    def _log_prob(self, data: Variables, batch_size: int | None) -> Array:
        standardized = self._standardized(data)
        theta = standardized["inference_variables"]
        intake.check_representable(
            {key: value for key, value in standardized.items() if key != "inference_variables"}, "data"
        )
        known = theta.isfinite().all(dim=1)
        log_prob = torch.full((len(theta),), -torch.inf, dtype=torch.float64, device=theta.device)
        if bool(known.any()):
            raw = as_tensors({name: data[name] for name in self.inference_names}, self._device)
            inner = self._log_prob_of({key: value[known] for key, value in standardized.items()}, batch_size)
            jacobian = self.adapter.log_abs_det(
                {name: value[known] for name, value in raw.items()}, "inference_variables"
            )
            log_prob[known] = inner + jacobian + self.standardizer.log_abs_det("inference_variables")
        return np.asarray(intake.checked_densities(log_prob, theta).cpu().numpy())

    def _log_prob_of(self, prepared: dict[str, Tensor], batch_size: int | None) -> Tensor:
        """Log density in nats of prepared data in standardized space, (n,), float64."""
        was_training = self.training
        self.eval()
        parts = []
        with torch.no_grad():
            for rows in chunks(prepared, batch_size):
                batch = {role: value[rows] for role, value in prepared.items()}
                parts.append(
                    self.inference_network.log_prob(batch["inference_variables"], self._conditions(batch))
                )
        self.train(was_training)
        return torch.cat(parts).to(torch.float64)

    def estimate(
        self, conditions: VariablesLike, *, split: bool = False, batch_size: int | None = None
    ) -> Estimates:
        """Always a ConfigurationError, since this approximator has draws; see
        `ScoringRuleApproximator.estimate`."""
        del conditions, split, batch_size
        raise ConfigurationError(
            f"{type(self.inference_network).__name__} has draws, not estimates: call sample and summarize "
            "the draws, or train with inference_network='scoring_rules' for estimates."
        )

    # ---- files --------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {
            "roles": self.roles,
            "adapter": self.adapter.to_json(),
            "standardize": list(dict.fromkeys(key.split("/")[0] for key in self.standardizer.roles)),
            "widths": self.standardizer.widths,
            "masks": {self.inputs.names[key]: name for key, name in self.inputs.masks.items()},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "inference_network": self.inference_network.to_json(),
            "summary_network": None if self.summary_network is None else self.summary_network.to_json(),
            "info": self.info,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The approximator of a file."""
        summary = settings["summary_network"]
        approximator = cls(
            adapter=Adapter.from_json(settings["adapter"]),
            roles=settings["roles"],
            inference_network=network_from_json(settings["inference_network"]),  # type: ignore[arg-type]
            summary_network=None if summary is None else network_from_json(summary),  # type: ignore[arg-type]
            standardize=tuple(settings["standardize"]),
            masks=settings["masks"],
            info=settings["info"],
        )
        approximator.shapes = {name: tuple(shape) for name, shape in settings["shapes"].items()}
        approximator.standardizer.declare(settings["widths"])
        approximator.load_state_dict(tensors)
        return approximator.eval()

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


files.KINDS[ContinuousApproximator.kind] = ContinuousApproximator.from_settings
