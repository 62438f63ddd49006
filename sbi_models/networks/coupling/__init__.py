"""Coupling flows: the network, its transforms and its base densities."""

from sbi_models.networks.coupling.coupling_flow import CouplingFlow

__all__ = ["CouplingFlow"]
