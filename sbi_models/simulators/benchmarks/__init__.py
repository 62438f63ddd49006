"""Models with known constants, one a file, with the exact posterior where there is one."""

from sbi_models.simulators.benchmarks.michelson import Michelson
from sbi_models.simulators.benchmarks.normal import NormalModel, NormalPosterior

__all__ = ["Michelson", "NormalModel", "NormalPosterior"]
