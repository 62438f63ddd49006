"""A network that is trained by scoring rules: one shared body, and a head for each rule.

    loss = sum over rules of score(predict(head(conditions)), theta)

Each score is a sum over components and, for the logarithmic one, in nats; the heads share the body and
nothing else, so that with a body that is large enough each rule learns what it would learn alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sbi_models.errors import ConfigurationError
from sbi_models.networks.base import Drawn, InferenceNetwork
from sbi_models.networks.layers import Widths, check_subnet, make_subnet
from sbi_models.networks.noise import Generators
from sbi_models.networks.registry import register, resolve
from sbi_models.networks.scoring.categories import CategoricalScore
from sbi_models.networks.scoring.rules import ParametricRule, PointRule, ScoringRule

Rule = ScoringRule | type[ScoringRule] | str
"""A rule, its class, or its registered name."""


@register("scoring_rules")
class ScoringRuleNetwork(InferenceNetwork):
    """Point estimates and parametric densities of the posterior, by one call of a network.

    With a parametric rule (`mv_normal`, `mixture`) it has draws and a density, those of the first such rule;
    without, estimates only.

    Args:
        scoring_rules: rules by names of your own, a list of them (each under its registered name), or one. A
            rule is an instance, a class or a registered name: "mean", "median", "quantile", "mv_normal",
            "mixture"; or "categorical", which goes with no other kind.
        widths: hidden widths of the body, or "small", "medium", "large"; equal ones for "residual".
        subnet: name of the network that is the body: "residual", "mlp", or one of your own.

    >>> network = ScoringRuleNetwork({"mean": "mean", "normal": "mv_normal"})
    >>> network.build(theta_dim=2, condition_dim=3)
    >>> {rule: type(value).__name__ for rule, value in network.estimate(torch.zeros(5, 3)).items()}
    {'mean': 'Tensor', 'normal': 'dict'}
    >>> network.sample(7, torch.zeros(5, 3)).shape
    torch.Size([5, 7, 2])
    """

    def __init__(
        self,
        scoring_rules: Mapping[str, Rule] | Sequence[Rule] | Rule = ("mean", "quantile"),
        widths: Widths = "medium",
        subnet: str = "residual",
    ) -> None:
        super().__init__()
        check_subnet(subnet, widths)
        self.widths, self.subnet = widths, subnet
        self.rules = _rules(scoring_rules)
        kinds = {isinstance(rule, CategoricalScore) for rule in self.rules.values()}
        if len(kinds) > 1:
            raise ConfigurationError(
                f"Expected rules of categories alone or of numbers alone, got {', '.join(self.rules)}: they "
                "score the same variables. Infer categories and numbers by a network each, or all by "
                "AutoregressiveMixture."
            )
        self.takes_discrete = kinds == {True}
        self.fits_graph = False  # some rules take constants to the GPU
        self.has_draws = self.has_density = any(
            isinstance(rule, ParametricRule) for rule in self.rules.values()
        )

    def _build(self, theta_dim: int, condition_dim: int) -> None:
        self.theta_dim = theta_dim
        for rule in self.rules.values():
            if isinstance(rule, CategoricalScore):
                rule.learn(self.discrete, theta_dim)
        self.head_widths = [rule.head_width(theta_dim) for rule in self.rules.values()]
        self.body = make_subnet(
            self.subnet, max(1, condition_dim), sum(self.head_widths), 0, self.widths, has_time=False
        )

    def predictions(self, conditions: Tensor) -> dict[str, Any]:
        """Prediction of each rule by its name, standardized space, for conditions (n, condition_dim)."""
        given = conditions if conditions.shape[-1] else conditions.new_ones(len(conditions), 1)
        heads = torch.split(self.body(given, conditions[:, :0]), self.head_widths, dim=-1)
        return {
            name: rule.predict(numbers, self.theta_dim)
            for (name, rule), numbers in zip(self.rules.items(), heads, strict=True)
        }

    def estimate(self, conditions: Tensor) -> dict[str, Tensor | dict[str, Tensor]]:
        """Estimates of each rule by its name, standardized space, for conditions (n, condition_dim).

        A point rule gives a tensor (n, ..., theta_dim), such as quantiles (n, levels, theta_dim); a
        parametric one tensors by name, such as `mean` (n, theta_dim) and `covariance` (n, theta_dim,
        theta_dim); "categorical" gives probabilities (n, theta_dim, categories).
        """
        shift, scale = conditions.new_zeros(self.theta_dim), conditions.new_ones(self.theta_dim)
        estimates: dict[str, Tensor | dict[str, Tensor]] = {}
        for name, prediction in self.predictions(conditions).items():
            rule = self.rules[name]
            if isinstance(rule, CategoricalScore):
                estimates[name] = prediction.exp()
                continue
            estimates[name] = (
                rule.estimates(prediction, shift, scale) if isinstance(rule, ParametricRule) else prediction
            )
        return estimates

    def loss(
        self,
        theta: Tensor,
        conditions: Tensor,
        generator: torch.Generator | None = None,
        to_raw: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The sum of the rules' scores, shape (n,), without noise.

        `to_raw` takes standardized values (..., theta_dim) to raw ones of similar scale, (..., width),
        differentiably. Where it is given, estimates that follow affine maps only, such as means, are scored
        there: what they estimate is then the mean of the raw values.
        """
        return self.loss_given(theta, conditions, self.draw(theta, generator), to_raw)

    def loss_given(
        self,
        theta: Tensor,
        conditions: Tensor,
        drawn: Drawn,
        to_raw: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """`loss`, which has no random numbers."""
        del drawn
        scores = []
        for name, prediction in self.predictions(conditions).items():
            rule = self.rules[name]
            if to_raw is not None and isinstance(rule, PointRule) and rule.follows is None:
                scores.append(rule.score(to_raw(prediction), to_raw(theta)))
            else:
                scores.append(rule.score(prediction, theta))
        return torch.stack(scores).sum(dim=0)

    def sample(self, num_samples: int, conditions: Tensor, generator: Generators = None) -> Tensor:
        """Standardized draws (n, num_samples, theta_dim) from the density of the first parametric rule.

        Raises:
            ConfigurationError: if no rule is parametric.
        """
        name, rule = self._density("has no draws: call estimate instead")
        return rule.sample(num_samples, self.predictions(conditions)[name], generator)

    def log_prob(self, theta: Tensor, conditions: Tensor) -> Tensor:
        """Log density in nats of the first parametric rule, shape (n,), at standardized theta (n, theta_dim).

        Raises:
            ConfigurationError: if no rule is parametric.
        """
        name, rule = self._density("has no density: there is no log_prob")
        return rule.log_prob(self.predictions(conditions)[name], theta)

    def _density(self, otherwise: str) -> tuple[str, ParametricRule]:
        for name, rule in self.rules.items():
            if isinstance(rule, ParametricRule):
                return name, rule
        raise ConfigurationError(
            f"ScoringRuleNetwork with the point estimates {', '.join(self.rules)} {otherwise}. Train a "
            "network with a parametric rule, 'mv_normal' or 'mixture', or another inference network, such "
            "as FlowMatching."
        )


def _rules(given: Mapping[str, Rule] | Sequence[Rule] | Rule) -> dict[str, ScoringRule]:
    """Rules of this network's own by name."""
    if not isinstance(given, Mapping):
        listed = list(given) if isinstance(given, list | tuple) else [given]
        rules = [_rule(rule) for rule in listed]
        names = [rule.registered_name for rule in rules]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ConfigurationError(
                f"Expected each scoring rule once in a list, got {twice[0]!r} twice. Name them: "
                "{'first': ..., 'second': ...}."
            )
        given = dict(zip(names, rules, strict=True))
    if not given or not all(isinstance(name, str) and name for name in given):
        raise ConfigurationError(
            f"Expected one or more scoring_rules with names, such as ['mean', 'quantile'], got {given!r}."
        )
    return {name: _rule(rule) for name, rule in given.items()}


def _rule(rule: Any) -> ScoringRule:
    resolved: ScoringRule = resolve(rule, ScoringRule)
    if "registered_name" not in vars(type(resolved)):  # it may have inherited the name of another rule
        raise ConfigurationError(
            f"{type(resolved).__name__} has no name of its own, which files need. Decorate it with "
            "@register('name')."
        )
    return resolved
