"""Scoring rules by name, instance and class, their arguments, and rules of one's own."""

import json

import pytest
import torch

from sbi_models.errors import ConfigurationError
from sbi_models.networks import (
    FlowMatching,
    MixtureScore,
    QuantileScore,
    ScoringRuleNetwork,
    network_from_json,
    register,
    resolve,
)
from sbi_models.networks.scoring import PointRule


def test_rules_are_given_in_any_form():
    """A name, a class, an instance, a list and a dict give the same rules; lists go by registered names."""
    forms = [
        "quantile",
        QuantileScore,
        QuantileScore(),
        ["quantile"],
        (QuantileScore,),
        {"quantile": QuantileScore()},
    ]
    for given in forms:
        assert [(name, rule.levels) for name, rule in ScoringRuleNetwork(given).rules.items()] == [
            ("quantile", (0.05, 0.5, 0.95))
        ]
    assert list(ScoringRuleNetwork().rules) == ["mean", "quantile"]
    assert not ScoringRuleNetwork().has_draws
    assert ScoringRuleNetwork(["mean", "mv_normal"]).has_density


def test_rules_with_arguments_are_cloned_and_described():
    """clone() and JSON keep the rules and their arguments, and share no instance."""
    network = ScoringRuleNetwork(
        {"five": QuantileScore(levels=(0.1, 0.2, 0.3, 0.4, 0.5)), "mix": MixtureScore(components=3)},
        widths=(8, 8),
    )
    network.build(2, 1)
    for twin in (network.clone(), network_from_json(json.loads(json.dumps(network.to_json())))):
        assert twin.rules["five"].levels == (0.1, 0.2, 0.3, 0.4, 0.5)
        assert twin.rules["mix"].components == 3
        assert twin.rules["mix"] is not network.rules["mix"]
    assert network_from_json(network.to_json()).estimate(torch.zeros(4, 1))["five"].shape == (4, 5, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ScoringRuleNetwork([]), "one or more scoring_rules"),
        (lambda: ScoringRuleNetwork({"": "mean"}), "with names"),
        (lambda: ScoringRuleNetwork({"center": "mean", "": "quantile"}), "with names"),
        (
            lambda: ScoringRuleNetwork("meen"),
            r"Unknown ScoringRule 'meen'. Did you mean 'mean'\? Known: categorical, mean, median, mixture",
        ),
        (lambda: ScoringRuleNetwork(["mean", FlowMatching()]), "Expected a ScoringRule"),
        (
            lambda: ScoringRuleNetwork([QuantileScore((0.1,)), QuantileScore((0.9,))]),
            "'quantile' twice. Name them",
        ),
        (lambda: ScoringRuleNetwork("mean", widths=(0,)), "at least 1"),
        (lambda: resolve("mean", FlowMatching), "Unknown FlowMatching 'mean'"),
        (lambda: QuantileScore(levels=()), "increasing levels between 0 and 1"),
        (lambda: QuantileScore(levels=(0.5, 0.5)), "increasing levels"),
        (lambda: QuantileScore(levels=(0.9, 0.1)), "increasing levels"),
        (lambda: QuantileScore(levels=(0.0, 0.5)), "between 0 and 1"),
        (lambda: MixtureScore(components=0), "components as a positive integer, got 0"),
        (lambda: QuantileScore(level=0.5), "has no argument 'level'. Did you mean 'levels'"),
    ],
)
def test_wrong_rules_are_refused(make, message):
    """Unknown, unnamed, doubled and impossible rules are refused by the constructor."""
    with pytest.raises(ConfigurationError, match=message):
        make()


@register("test_expectile")
class Expectile(PointRule):
    """A rule of one's own: the expectile of level 0.8, by asymmetric squared error."""

    def head_width(self, theta_dim):
        return theta_dim

    def predict(self, numbers, theta_dim):
        return numbers

    def score(self, prediction, theta):
        return (torch.where(theta > prediction, 0.8, 0.2) * (theta - prediction).square()).sum(dim=-1)


class Nameless(Expectile):
    """Not registered: it must not go under the name of its parent."""


def test_rules_of_ones_own():
    """A registered rule is found by its name, in files too; one without a name of its own is refused."""
    network = ScoringRuleNetwork(["test_expectile", "mv_normal"], widths=(8, 8))
    network.build(2, 3)
    assert isinstance(network_from_json(network.to_json()).rules["test_expectile"], Expectile)
    assert network.estimate(torch.zeros(4, 3))["test_expectile"].shape == (4, 2)
    with pytest.raises(ConfigurationError, match="Nameless has no name of its own"):
        ScoringRuleNetwork({"mine": Nameless()})
