"""Adapters: transforms of raw variables of a simulator to the roles of networks, and back."""

from sbi_models.adapters.adapter import ROLES, Adapter, default_adapter
from sbi_models.adapters.transforms import KINDS, Concatenate, Transform, register_transform

__all__ = ["KINDS", "ROLES", "Adapter", "Concatenate", "Transform", "default_adapter", "register_transform"]
