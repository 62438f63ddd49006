"""Summary networks, one a file."""

from sbi_models.networks.summary.convolutional_network import ConvolutionalNetwork
from sbi_models.networks.summary.deep_set import DeepSet
from sbi_models.networks.summary.fusion_network import FusionNetwork
from sbi_models.networks.summary.nested_set import NestedSet
from sbi_models.networks.summary.set_transformer import SetTransformer
from sbi_models.networks.summary.time_series_network import TimeSeriesNetwork
from sbi_models.networks.summary.time_series_transformer import TimeSeriesTransformer

__all__ = [
    "ConvolutionalNetwork",
    "DeepSet",
    "FusionNetwork",
    "NestedSet",
    "SetTransformer",
    "TimeSeriesNetwork",
    "TimeSeriesTransformer",
]
