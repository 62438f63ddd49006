"""Consistency models."""

from sbi_models.networks.consistency.consistency_model import ConsistencyModel

__all__ = ["ConsistencyModel"]
