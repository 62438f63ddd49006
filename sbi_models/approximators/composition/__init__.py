"""Composition: draws of the posterior given several observations, from scores of the one given each."""

from sbi_models.approximators.composition import calibrated, diffusion
from sbi_models.approximators.composition.methods import METHODS, SIMULATING, register_method

__all__ = ["METHODS", "SIMULATING", "calibrated", "diffusion", "register_method"]
