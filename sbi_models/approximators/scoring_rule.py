"""Approximator of point estimates and parametric densities by scoring rules.

Estimates are made in standardized space and taken back through the adapter. That is right for a quantile if
the adapter is increasing in each component, for a median if it is monotone, and for a mean only if it is
affine: the mean of log sigma is not the log of the mean. So the adapter is looked at before training. Medians
and quantiles are scored in standardized space, and refused where the adapter mixes components or, for
quantiles, reverses one. Means are taken to raw space and scored there: the inverse of the adapter is a link
function, as in a generalized linear model, and what is learned is the mean of the raw values, inside their
support.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_models.approximators.base import APPROXIMATORS
from sbi_models.approximators.continuous import ContinuousApproximator
from sbi_models.approximators.rows import by_component, chunks
from sbi_models.arguments import known_arguments
from sbi_models.errors import ConfigurationError
from sbi_models.networks import InferenceNetwork, ScoringRuleNetwork
from sbi_models.networks.base import Drawn
from sbi_models.networks.scoring import CategoricalScore, ParametricRule, PointRule
from sbi_models.types import Estimates, Variables, VariablesLike

_RAW = "raw_inference_variables"
"""Name, among the standardized roles, of the inferred raw variables side by side in their order."""

_ROWS_FOR_SLOPES = 256


@APPROXIMATORS.register("scoring_rule")
@known_arguments
class ScoringRuleApproximator(ContinuousApproximator):
    """Amortized point estimates and parametric densities; arguments as for `ContinuousApproximator`.

    With a parametric rule it samples and has log densities, in raw space and exact for every adapter, those
    of the first such rule.

    >>> import numpy as np, sbi_models as bf
    >>> roles = {"inference_variables": ["theta"], "inference_conditions": ["x"]}
    >>> approximator = bf.approximators.ScoringRuleApproximator(
    ...     adapter=bf.adapters.default_adapter(roles),
    ...     roles=roles,
    ...     inference_network=bf.networks.ScoringRuleNetwork(scoring_rules={"mean": "mean"}),
    ... )
    >>> rng = np.random.default_rng(1)
    >>> approximator.build({"theta": rng.normal(size=(64, 2)), "x": rng.normal(size=(64, 2))}, seed=1)
    >>> approximator.estimate({"x": np.zeros((3, 2))})["mean"]["theta"].shape
    (3, 2)
    """

    kind = "scoring_rule"
    inference_network: ScoringRuleNetwork

    def __init__(
        self,
        *,
        inference_network: InferenceNetwork,
        standardize: tuple[str, ...] = ("inference_variables",),
        **arguments: Any,
    ) -> None:
        if not isinstance(inference_network, ScoringRuleNetwork):
            raise ConfigurationError(
                f"Expected a ScoringRuleNetwork, got {type(inference_network).__name__}. Use "
                "ContinuousApproximator for other networks."
            )
        roles = tuple(dict.fromkeys((*standardize, _RAW)))
        super().__init__(inference_network=inference_network, standardize=roles, **arguments)

    def _make_layers(self, adapted: dict[str, Tensor]) -> None:
        theta = adapted["inference_variables"]
        if theta.ndim == 2 and any(
            isinstance(rule, PointRule) for rule in self.inference_network.rules.values()
        ):
            self._check_rules(theta)
            raw = self._raw(theta)
            self.standardizer.declare({_RAW: raw.shape[-1]})
            self.standardizer.fit({_RAW: raw})
        super()._make_layers(adapted)

    def _check_rules(self, theta: Tensor) -> None:
        """Raise ConfigurationError unless the estimates of every rule can be taken back to raw space.

        Adapted theta has shape (n, d).
        """
        slopes = self._slopes(theta[:_ROWS_FOR_SLOPES])
        depends = (slopes != 0).any(dim=0)
        apart = bool((depends.sum(dim=0) == 1).all() and (depends.sum(dim=1) == 1).all())
        fits = {
            None: bool(depends.any(dim=1).all()),
            "monotone": apart,
            "increasing": apart and bool((slopes >= 0).all()),
        }
        for name, rule in self.inference_network.rules.items():
            if isinstance(rule, PointRule) and not fits[rule.follows]:
                kinds = ", ".join(transform.kind for transform in self.adapter.transforms)
                expected = f"{rule.follows} in each component" if rule.follows else "differentiable"
                raise ConfigurationError(
                    f"Expected an adapter ({kinds}) that is {expected} for the scoring rule {name!r} of "
                    f"{', '.join(self.inference_names)}: its estimates could not be taken back to raw space "
                    "otherwise. Change the adapter, leave the rule out, or use 'mv_normal' or 'mixture' "
                    "and take it from draws."
                )

    def _slopes(self, theta: Tensor) -> Tensor:
        """Slopes d raw_k / d adapted_j at adapted theta (n, d), shape (n, k, d).

        They are zero where there is no derivative, as after classes.
        """
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            raw = self._raw(theta)
            if not raw.requires_grad:
                return torch.zeros(*raw.shape, theta.shape[-1])
            rows = [
                torch.autograd.grad(raw[:, k].sum(), theta, retain_graph=True)[0]
                for k in range(raw.shape[-1])
            ]
        return torch.stack(rows, dim=1)

    def _raw(self, adapted: Tensor) -> Tensor:
        """Adapted theta (n, d) to the inferred raw variables side by side, (n, width)."""
        raw = self.adapter.inverse({"inference_variables": adapted})
        return torch.cat([raw[name].reshape(len(adapted), -1) for name in self.inference_names], dim=-1)

    def _link(self, standardized: Tensor) -> Tensor:
        """Standardized theta (..., d) to raw values (..., width) with mean 0 and sd 1 in training data."""
        rows = standardized.reshape(-1, standardized.shape[-1]).to(torch.float64)
        raw: Tensor = self.standardizer(
            _RAW, self._raw(self.standardizer.inverse("inference_variables", rows))
        )
        return raw.to(standardized.dtype).reshape(*standardized.shape[:-1], -1)

    def loss(self, prepared: dict[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """The sum of the rules' scores for each row of a prepared batch, shape (n,)."""
        return self.inference_network.loss(
            prepared["inference_variables"], self._conditions(prepared), generator, to_raw=self._link
        )

    def loss_given(self, prepared: dict[str, Tensor], drawn: Drawn) -> Tensor:
        """The loss, shape (n,), which has no random numbers."""
        return self.inference_network.loss_given(
            prepared["inference_variables"], self._conditions(prepared), drawn, to_raw=self._link
        )

    @torch.no_grad()
    def estimate(
        self, conditions: VariablesLike, *, split: bool = False, batch_size: int | None = None
    ) -> Estimates:
        """What each scoring rule estimates for every data set.

        Args:
            conditions: raw variables of shape (num_datasets, ...); further ones, such as the parameters of a
                test batch, are left aside.
            split: point estimates of each component of a variable of width d as a variable of its own, name_0
                ... name_(d-1), width 1.
            batch_size: data sets in one call of the networks; results do not depend on it beyond rounding.

        Returns:
            Rule to {name: array}. Point rules, in raw space, by variable: means and medians (num_datasets,
            width), quantiles (num_datasets, levels, width) in the order of the levels. Parametric rules, in
            adapted space, by parameter: `mean` (num_datasets, d) and `covariance` (num_datasets, d, d) of all
            inferred components, side by side as the adapter joins them; the default adapter joins the raw
            values in the order of inference_variables. For moments of raw values after another adapter, draw
            and average. The rule "categorical", by variable: probabilities (num_datasets, C) that sum to 1,
            and, as `NAME_values`, the values of the categories that they are of, the same in each row; a
            variable of several components has those of each, `NAME_0`, ...
        """
        prepared = self._prepare(conditions, self.condition_names, "conditions")
        was_training = self.training
        self.eval()
        parts: list[Estimates] = []
        for rows in chunks(prepared, batch_size):
            given = self._conditions({role: value[rows] for role, value in prepared.items()})
            parts.append(self._estimates(given, split=split))
        self.train(was_training)
        return {
            rule: {name: np.concatenate([part[rule][name] for part in parts]) for name in first}
            for rule, first in parts[0].items()
        }

    def answer(self, given: Tensor) -> dict[str, Tensor]:
        """One draw, if there are any, and all estimates, for each row of the network's conditions."""
        self._estimates(given, split=False)
        return super().answer(given) if self.has_draws else {}

    def _estimates(self, given: Tensor, *, split: bool) -> Estimates:
        """Estimates for conditions (n, condition_dim) of the network."""
        zero = given.new_zeros(self.inference_network.theta_dim, dtype=torch.float64)
        shift = self.standardizer.inverse("inference_variables", zero)
        scale = getattr(self.standardizer, "inference_variables_sd", zero + 1)
        estimates: Estimates = {}
        for name, prediction in self.inference_network.predictions(given).items():
            rule = self.inference_network.rules[name]
            if isinstance(rule, CategoricalScore):
                estimates[name] = self._probabilities(prediction.exp(), split=split)
            elif isinstance(rule, ParametricRule):
                estimates[name] = {
                    key: value.cpu().numpy()
                    for key, value in rule.estimates(prediction, shift, scale).items()
                }
            else:
                rows = prediction.reshape(len(prediction), -1, prediction.shape[-1])
                raw = {
                    key: value.reshape(*prediction.shape[:-1], -1)
                    for key, value in self._to_raw(rows).items()
                }
                estimates[name] = by_component(raw) if split else raw
        return estimates

    def _probabilities(self, probabilities: Tensor, *, split: bool) -> Variables:
        """Probabilities (n, d, C) of the role's columns by variable, with the values of the categories."""
        known, by_name = self.discrete_variables, {}
        zeros = torch.zeros(1, probabilities.shape[1], dtype=torch.float64, device=probabilities.device)
        role = "inference_variables"
        for column, name, component in self.adapter.discrete_places(
            self.adapter.inverse({role: zeros}), role
        ):
            values = known[name][component]
            assert values is not None
            alone = len(known[name]) == 1 and not split
            label = name if alone else f"{name}_{component}"
            by_name[label] = probabilities[:, column, : len(values)].to(torch.float64).cpu().numpy()
            by_name[f"{label}_values"] = np.tile(np.asarray(values), (len(probabilities), 1))
        return by_name
