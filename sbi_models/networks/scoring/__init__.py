"""Scoring rules: point estimates and parametric densities, from a network with one head a rule."""

from sbi_models.networks.scoring.categories import CategoricalScore
from sbi_models.networks.scoring.parametric import MixtureScore, MultivariateNormalScore
from sbi_models.networks.scoring.points import MeanScore, MedianScore, QuantileScore
from sbi_models.networks.scoring.rules import ParametricRule, PointRule, ScoringRule
from sbi_models.networks.scoring.scoring_rules import ScoringRuleNetwork

__all__ = [
    "CategoricalScore",
    "MeanScore",
    "MedianScore",
    "MixtureScore",
    "MultivariateNormalScore",
    "ParametricRule",
    "PointRule",
    "QuantileScore",
    "ScoringRule",
    "ScoringRuleNetwork",
]
