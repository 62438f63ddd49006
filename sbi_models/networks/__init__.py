"""Networks that know nothing of training, tracking or flows: inference networks and summary networks."""

from sbi_models.networks.base import InferenceNetwork, Network, SummaryNetwork
from sbi_models.networks.coupling import CouplingFlow
from sbi_models.networks.flow_matching import FlowMatching
from sbi_models.networks.registry import network_from_json, network_named, register, resolve
from sbi_models.networks.summary import DeepSet

__all__ = [
    "CouplingFlow",
    "DeepSet",
    "FlowMatching",
    "InferenceNetwork",
    "Network",
    "SummaryNetwork",
    "network_from_json",
    "network_named",
    "register",
    "resolve",
]
