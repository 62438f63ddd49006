"""Layers shared by several networks."""

from sbi_models.networks.layers.conditional_mlp import ConcatenatingMLP, ConditionalMLP
from sbi_models.networks.layers.mlp import MLP, keep_scale
from sbi_models.networks.layers.subnets import (
    SUBNETS,
    Subnet,
    Widths,
    check_subnet,
    checked_widths,
    make_subnet,
    register_subnet,
)
from sbi_models.networks.layers.time_features import TimeFeatures

__all__ = [
    "MLP",
    "SUBNETS",
    "ConcatenatingMLP",
    "ConditionalMLP",
    "Subnet",
    "TimeFeatures",
    "Widths",
    "check_subnet",
    "checked_widths",
    "keep_scale",
    "make_subnet",
    "register_subnet",
]
