"""Amortized posterior approximators: adapter, standardizer and networks in one object."""

from sbi_models.approximators.base import Approximator
from sbi_models.approximators.certificates.certificate import Certificate
from sbi_models.approximators.compositional import CompositionalApproximator
from sbi_models.approximators.continuous import ContinuousApproximator
from sbi_models.approximators.ensemble import EnsembleApproximator
from sbi_models.approximators.likelihood import LikelihoodApproximator
from sbi_models.approximators.loading import load_approximator
from sbi_models.approximators.scoring_rule import ScoringRuleApproximator

__all__ = [
    "Approximator",
    "Certificate",
    "CompositionalApproximator",
    "ContinuousApproximator",
    "EnsembleApproximator",
    "LikelihoodApproximator",
    "ScoringRuleApproximator",
    "load_approximator",
]
