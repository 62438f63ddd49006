"""Inference networks and summary networks, in plain PyTorch."""

from sbi_models.networks.autoregressive import AutoregressiveMixture
from sbi_models.networks.base import InferenceNetwork, Network, RatioNetwork, SummaryNetwork
from sbi_models.networks.consistency import ConsistencyModel
from sbi_models.networks.coupling import CouplingFlow
from sbi_models.networks.diffusion import DiffusionModel, register_sampler, register_schedule
from sbi_models.networks.flow_matching import FlowMatching
from sbi_models.networks.layers import register_subnet
from sbi_models.networks.ratio import ContrastiveRatio
from sbi_models.networks.registry import network_from_json, network_named, register, resolve
from sbi_models.networks.scoring import (
    CategoricalScore,
    MeanScore,
    MedianScore,
    MixtureScore,
    MultivariateNormalScore,
    QuantileScore,
    ScoringRuleNetwork,
)
from sbi_models.networks.summary import (
    ConvolutionalNetwork,
    DeepSet,
    FusionNetwork,
    NestedSet,
    SetTransformer,
    TimeSeriesNetwork,
    TimeSeriesTransformer,
)

__all__ = [
    "AutoregressiveMixture",
    "CategoricalScore",
    "ConsistencyModel",
    "ContrastiveRatio",
    "ConvolutionalNetwork",
    "CouplingFlow",
    "DeepSet",
    "DiffusionModel",
    "FlowMatching",
    "FusionNetwork",
    "InferenceNetwork",
    "MeanScore",
    "MedianScore",
    "MixtureScore",
    "MultivariateNormalScore",
    "NestedSet",
    "Network",
    "QuantileScore",
    "RatioNetwork",
    "ScoringRuleNetwork",
    "SetTransformer",
    "SummaryNetwork",
    "TimeSeriesNetwork",
    "TimeSeriesTransformer",
    "network_from_json",
    "network_named",
    "register",
    "register_sampler",
    "register_schedule",
    "register_subnet",
    "resolve",
]
