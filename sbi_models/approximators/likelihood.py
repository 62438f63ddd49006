"""Approximator of a likelihood: the density of observables given parameters, of one element or a whole."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models.adapters import Adapter
from sbi_models.approximators.base import APPROXIMATORS, Adapted
from sbi_models.approximators.certificates.scores import OptionalBuffers
from sbi_models.approximators.continuous import ContinuousApproximator
from sbi_models.approximators.validation import as_variables, check_network_output
from sbi_models.arguments import known_arguments
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.networks import InferenceNetwork, RatioNetwork, SummaryNetwork
from sbi_models.ragged import is_ragged, leaves, lengths
from sbi_models.types import Array, Variables, VariablesLike

KINDS_OF_DATA = (None, "elements", "sets")
"""Values of `iid`: data are one whole; or sets, of which a simulation is one element, or a set."""

_KEY = "likelihood"


class _Reach(OptionalBuffers):
    """Least and largest adapted conditions of the simulations, (2, width), float64."""

    ends: Tensor | None


@APPROXIMATORS.register("likelihood")
@known_arguments
class LikelihoodApproximator(ContinuousApproximator):
    """Density of observables (the inference variables) given parameters (among the conditions).

    Args:
        adapter, roles, inference_network, summary_network, standardize, masks, info: arguments as for
            `ContinuousApproximator`; there is no summary network.
        iid: what data are: None, one vector of observables; "elements", any number of independent elements,
            of which a simulation is one; "sets", the same, where a simulation is a set of elements.
        element_conditions: names of the conditions that are no parameters, such as a stimulus.
        support: lower and upper bounds of the components of parameters, by name, raw space; None where there
            is none. The likelihood of other parameters is zero.

    >>> import numpy as np, sbi_models as bf
    >>> roles = {"inference_variables": ["x"], "inference_conditions": ["theta"]}
    >>> approximator = bf.approximators.LikelihoodApproximator(
    ...     adapter=bf.adapters.default_adapter(roles),
    ...     roles=roles,
    ...     inference_network=bf.networks.AutoregressiveMixture(2, trunk_width=8, head_width=8),
    ...     iid="sets",
    ... )
    >>> rng = np.random.default_rng(1)
    >>> data = {"theta": rng.normal(size=(64, 1)), "x": rng.normal(size=(64, 5, 2))}
    >>> approximator.build(data, seed=1)
    >>> approximator.prepare(data)["inference_variables"].shape
    torch.Size([320, 2])
    """

    kind = "likelihood"

    def __init__(
        self,
        *,
        adapter: Adapter,
        roles: dict[str, list[str]],
        inference_network: InferenceNetwork,
        summary_network: SummaryNetwork | None = None,
        standardize: tuple[str, ...] = ("inference_variables", "inference_conditions"),
        masks: Mapping[str, str] | None = None,
        info: dict[str, Any] | None = None,
        iid: str | None = None,
        element_conditions: Sequence[str] = (),
        support: Mapping[str, tuple[list[float | None], list[float | None]]] | None = None,
    ) -> None:
        own = (info or {}).get(_KEY) or {
            "iid": iid,
            "element_conditions": list(element_conditions),
            "support": {name: [list(ends) for ends in bounds] for name, bounds in (support or {}).items()},
        }
        super().__init__(
            adapter=adapter,
            roles=roles,
            inference_network=inference_network,
            summary_network=summary_network,
            standardize=standardize,
            masks=masks,
            info={**(info or {}), _KEY: own},
        )
        self.iid: str | None = own["iid"]
        self.element_conditions = tuple(own["element_conditions"])
        self.support: dict[str, Any] = own["support"]
        unknown = [name for name in self.element_conditions if name not in self.condition_names]
        if self.iid not in KINDS_OF_DATA or unknown or summary_network is not None:
            raise ConfigurationError(
                f"Expected iid as one of {KINDS_OF_DATA}, element_conditions among "
                f"{self.condition_names} and no summary network, got iid={self.iid!r}, "
                f"{self.element_conditions} and {summary_network}."
            )
        self.reach = _Reach("ends")

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Raw names of the parameters."""
        return tuple(name for name in self.condition_names if name not in self.element_conditions)

    # ---- training -----------------------------------------------------------

    def adapted(self, data: VariablesLike) -> Adapted:
        """Adapter fitted to raw data, and their elements after it."""
        return super().adapted(self.elements(data, "data")[0])

    def build_from(self, adapted: Adapted, *, seed: int) -> None:
        """`build`, after `adapted`; the range of the conditions is kept as `reach`, adapted space."""
        super().build_from(adapted, seed=seed)
        given = adapted.variables["inference_conditions"].to(torch.float64)
        self.reach.ends = torch.stack([given.amin(dim=0), given.amax(dim=0)])

    def prepare(self, data: VariablesLike, *, what: str = "data") -> dict[str, Tensor]:
        """Raw simulations to standardized tensors by role, one row for each element."""
        return super().prepare(self.elements(data, what)[0], what=what)

    # ---- parameters ---------------------------------------------------------

    def supports(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Booleans (m,): which parameters, name to (m, width), raw space, lie inside the `support`."""
        fine = torch.ones(len(next(iter(parameters.values()))), dtype=torch.bool)
        for name, (lower, upper) in self.support.items():
            ends = [
                torch.tensor(
                    [sign * torch.inf if end is None else end for end in bounds], dtype=torch.float64
                )
                for sign, bounds in ((-1, lower), (1, upper))
            ]
            fine &= ((parameters[name] >= ends[0]) & (parameters[name] <= ends[1])).all(dim=1)
        return fine

    def beyond_reach(self, adapted: Tensor) -> Tensor:
        """Booleans (m, width): which adapted conditions lie outside of the range of the simulations."""
        ends = self.reach.ends
        if ends is None:
            return torch.zeros_like(adapted, dtype=torch.bool)
        return (adapted < ends[0].cpu()) | (adapted > ends[1].cpu())

    # ---- file ---------------------------------------------------------------

    def answer(self, given: Tensor) -> dict[str, Tensor]:
        """Observables for each row of conditions of the network, raw space: a draw, or those of a ratio that
        it can be evaluated at."""
        network = self.inference_network
        if not isinstance(network, RatioNetwork):
            return super().answer(given)
        observed = given.new_zeros(len(given), self.standardizer.widths["inference_variables"])
        check_network_output(network.log_ratio(observed, given).isfinite(), "ratios")
        return self.raw_of(observed.to(torch.float64))

    # ---- elements -----------------------------------------------------------

    def elements(
        self, data: VariablesLike, what: str, *, of_simulations: bool = True
    ) -> tuple[Variables, Array]:
        """Raw variables of single elements (total, ...), and the number of elements of each row of the data.

        Args:
            data: raw variables; parameters, if there are some, are repeated for each element.
            what: name of the data for messages.
            of_simulations: whether rows are simulations, which with iid="elements" are one element each, or
                data sets, of any number of elements.

        Raises:
            DataError: for variables that do not fit, and for NaN.
        """
        given = tuple(
            name for name in self.condition_names if name in data or name in self.element_conditions
        )
        if of_simulations:
            given = self.condition_names
        variables = as_variables(data, self.inference_names + given, what=what, may_miss=self.inference_names)
        self._refuse_missing(variables, what)
        if self.iid is None or (self.iid == "elements" and of_simulations):
            counts = np.ones(len(next(iter(variables.values()))), dtype=int)
            return self._as_vectors(variables), counts
        observed = {name: self._as_sets(name, variables[name]) for name in self.inference_names}
        counts = lengths(next(iter(observed.values())))
        flat = {name: self._flat(name, value, counts, what) for name, value in observed.items()}
        for name in given:
            is_own = name in self.element_conditions
            per_element = is_own and self._is_per_element(name, variables[name], counts)
            flat[name] = (
                self._flat(name, self._as_sets(name, variables[name]), counts, what)
                if per_element
                else np.repeat(variables[name], counts, axis=0)
            )
        return flat, counts

    def _as_vectors(self, variables: Variables) -> Variables:
        """Observables of a ratio as vectors (n, d), whatever their shape, which its network knows."""
        if not isinstance(self.inference_network, RatioNetwork):
            return variables
        flat = {
            name: value.reshape(len(value), -1)
            for name, value in variables.items()
            if name in self.inference_names and value.ndim > 2
        }
        return {**variables, **flat}

    def _refuse_missing(self, variables: Variables, what: str) -> None:
        for name in self.inference_names:
            holes = sum(int(np.isnan(leaf).sum()) for leaf in leaves(variables[name]))
            if holes:
                cure = (
                    "Leave those elements out: a likelihood is a product over the elements that are there"
                    if self.iid
                    else "Drop those rows"
                )
                raise DataError(
                    f"Expected numbers in {name!r} of the {what}, got NaN at {holes} places. {cure}."
                )

    def _as_sets(self, name: str, value: Array) -> Array:
        """A variable as sets (n, N, d), or ragged; (n, N) numbers get an axis, (n, d) is one element."""
        if is_ragged(value) or value.ndim != 2:
            return value
        width = self.shapes[name][0] if name in self.shapes else 1
        return value[:, None] if width > 1 and value.shape[1] == width else value[..., None]

    def _is_per_element(self, name: str, value: Array, counts: Array) -> bool:
        """Whether a condition has a value for each element, and not one for each set."""
        if is_ragged(value) or value.ndim > 2:
            return True
        if name in self.shapes and self.shapes[name][0] > 1:
            return False  # (n, width), even for as many elements as its width
        return bool(value.shape[1] > 1 and (counts == value.shape[1]).all())

    @staticmethod
    def _flat(name: str, value: Array, counts: Array, what: str) -> Array:
        if not np.array_equal(lengths(value), counts):
            raise DataError(
                f"Expected as many elements of {name!r} as of the first observable in each row of the "
                f"{what}, got others."
            )
        parts = [leaf if is_ragged(value) else leaf.reshape(-1, *leaf.shape[2:]) for leaf in leaves(value)]
        if not sum(map(len, parts)):
            raise DataError(f"Expected elements of {name!r} in the {what}, got none.")
        return np.concatenate([part for part in parts if len(part)])
