"""Flow matching."""

from sbi_models.networks.flow_matching.flow_matching import FlowMatching

__all__ = ["FlowMatching"]
