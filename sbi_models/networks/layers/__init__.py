"""Layers shared by several networks."""

from sbi_models.networks.layers.conditional_mlp import ConditionalMLP
from sbi_models.networks.layers.mlp import MLP
from sbi_models.networks.layers.time_features import TimeFeatures

__all__ = ["MLP", "ConditionalMLP", "TimeFeatures"]
