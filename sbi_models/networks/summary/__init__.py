"""Summary networks, one a file."""

from sbi_models.networks.summary.deep_set import DeepSet

__all__ = ["DeepSet"]
