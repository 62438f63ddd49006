"""Densities of one component after the other."""

from sbi_models.networks.autoregressive.autoregressive_mixture import AutoregressiveMixture

__all__ = ["AutoregressiveMixture"]
