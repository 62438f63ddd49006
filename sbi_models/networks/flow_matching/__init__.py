"""Flow matching: the network and its solver."""

from sbi_models.networks.flow_matching.flow_matching import FlowMatching

__all__ = ["FlowMatching"]
