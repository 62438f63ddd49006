"""Approximator of a posterior with a density: raw data in, raw draws and log densities out.

raw space (the user's) -> adapter -> adapted space -> standardizer -> standardized space, where the networks
live.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.adapters import Adapter
from sbi_models.approximators import files, validation
from sbi_models.approximators.base import APPROXIMATORS
from sbi_models.approximators.certificates.out_of_distribution import OutOfDistributionScores
from sbi_models.approximators.discrete import check_takes_discrete
from sbi_models.approximators.preparation import Preparation
from sbi_models.approximators.rows import as_tensors, by_component, chunks, padded_tensors
from sbi_models.approximators.standardizer import Standardizer
from sbi_models.approximators.summary_inputs import SUMMARY, SummaryInputs
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import ConfigurationError
from sbi_models.networks import InferenceNetwork, SummaryNetwork, network_from_json
from sbi_models.networks.base import Drawn
from sbi_models.networks.noise import Generators
from sbi_models.progress import Advance, progress_bar
from sbi_models.types import Array, Estimates, Variables, VariablesLike

_DRAWS_PER_BLOCK = 8192
"""Number of draws of a data set that share a random stream; a part of what a seed means: never change it."""

_DRAWS_BEFORE_PROGRESS, _ROWS_PER_CALL = 200_000, 2**15
"""Number of draws from which progress is shown, and rows of one network call, which bound memory."""


@APPROXIMATORS.register("continuous")
@known_arguments
class ContinuousApproximator(Preparation):
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

    >>> import numpy as np, sbi_models as bf
    >>> roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    >>> approximator = bf.approximators.ContinuousApproximator(
    ...     adapter=bf.adapters.default_adapter(roles),
    ...     roles=roles,
    ...     inference_network=bf.networks.CouplingFlow(depth=1, widths=(8,)),
    ... )
    >>> rng = np.random.default_rng(1)
    >>> approximator.build({"theta": rng.normal(size=(64, 2)), "x": rng.normal(size=(64, 2))}, seed=1)
    >>> approximator.sample(num_samples=5, conditions={"x": np.zeros((3, 2))}, seed=2)["theta"].shape
    (3, 5, 2)
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
        adapter.check()
        check_takes_discrete(inference_network, adapter, roles["inference_variables"])
        self.adapter = adapter.route(
            {role: names for role, names in self.roles.items() if role != SUMMARY or self.inputs.is_one}
        )
        self.standardizer = Standardizer(
            tuple(part for role in standardize for part in (self.inputs.names if role == SUMMARY else [role]))
        )
        self.info = files.as_json(dict(info or {}))
        self.novelty = OutOfDistributionScores()
        for network in (inference_network, summary_network):
            if network is not None:
                files.as_json(network.to_json())
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.any_length: dict[str, int] = {}

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
            seed: seed of the draws; None takes one from NumPy's global state.

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
        validation.check_network_output(standardized.isfinite().flatten(1).all(dim=1), "draws")
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
        validation.check_overflow(values)
        return values

    def answer(self, given: Tensor) -> dict[str, Tensor]:
        """One draw for each row of conditions of the inference network, raw space, name to (n, ...)."""
        return self.raw_of(self.standardized_draws(1, given, None, seed=0).flatten(0, 1).to(torch.float64))

    def raw_of(self, standardized: Tensor) -> dict[str, Tensor]:
        """Standardized parameters (n, d) to raw variables, name to (n, ...), with gradients."""
        raw = self.adapter.inverse(
            {"inference_variables": self.standardizer.inverse("inference_variables", standardized)}
        )
        return {name: raw[name] for name in self.inference_names}

    def log_prob(self, data: VariablesLike, *, batch_size: int | None = None) -> Array:
        """Log densities in nats of parameters given conditions, raw space, (num_datasets,).

        It is -inf for parameters outside the support of the adapter, and for those so far out that float32
        cannot hold it.
        """
        self._check_built()
        names = self.inference_names + self.condition_names
        variables = validation.as_variables(data, names, may_miss=self.may_miss)
        validation.check_shapes(variables, self.shapes, any_length=self.any_length)
        tensors, _ = padded_tensors(variables, self.any_length)
        inside = self.adapter.inside(tensors, self.inference_names).numpy()
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
        validation.check_representable(
            {key: value for key, value in standardized.items() if key != "inference_variables"}, "data"
        )
        known = theta.isfinite().all(dim=1)
        log_prob = torch.full((len(theta),), -torch.inf, dtype=torch.float64, device=theta.device)
        if bool(known.any()):
            raw = as_tensors({name: data[name] for name in self.inference_names}, self.device)
            inner = self._log_prob_of({key: value[known] for key, value in standardized.items()}, batch_size)
            jacobian = self.adapter.log_abs_det(
                {name: value[known] for name, value in raw.items()}, "inference_variables"
            )
            log_prob[known] = inner + jacobian + self.standardizer.log_abs_det("inference_variables")
        return np.asarray(validation.checked_densities(log_prob, theta).cpu().numpy())

    def _log_prob_of(self, prepared: dict[str, Tensor], batch_size: int | None) -> Tensor:
        """Log density in nats of prepared data in standardized space, (n,), float64."""
        was_training = self.training
        self.eval()
        parts = []
        with torch.no_grad():
            for rows in chunks(prepared, batch_size):
                batch = self._cut({role: value[rows] for role, value in prepared.items()})
                parts.append(
                    self.inference_network.log_prob(batch["inference_variables"], self._conditions(batch))
                )
        self.train(was_training)
        return torch.cat(parts).to(torch.float64)

    def estimate(
        self, conditions: VariablesLike, *, split: bool = False, batch_size: int | None = None
    ) -> Estimates:
        """Raise ConfigurationError: there are draws, not estimates."""
        del conditions, split, batch_size
        raise ConfigurationError(
            f"{type(self.inference_network).__name__} has draws, not estimates: call sample and summarize "
            "the draws, or train with inference_network='scoring_rules' for estimates."
        )

    # ---- files --------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        any_length = {"any_length": self.any_length} if self.any_length else {}
        return any_length | {
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
        approximator.any_length = dict(settings.get("any_length", {}))
        approximator.inputs.allow_any_length(
            approximator.any_length, approximator.roles, approximator.summary_network
        )
        approximator.standardizer.declare(settings["widths"])
        approximator.load_state_dict(tensors)
        return approximator.eval()
