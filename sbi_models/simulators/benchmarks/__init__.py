"""Benchmark models with fixed constants, one per file, with the exact posterior where it is known."""

from sbi_models.simulators.benchmarks.base import Benchmark, TractableBenchmark
from sbi_models.simulators.benchmarks.bernoulli_glm import BernoulliGLM
from sbi_models.simulators.benchmarks.bernoulli_glm_raw import BernoulliGLMRaw
from sbi_models.simulators.benchmarks.gaussian_linear import GaussianLinear
from sbi_models.simulators.benchmarks.gaussian_linear_uniform import GaussianLinearUniform
from sbi_models.simulators.benchmarks.gaussian_mixture import GaussianMixture
from sbi_models.simulators.benchmarks.hare_lynx import HareLynx
from sbi_models.simulators.benchmarks.influenza import Influenza
from sbi_models.simulators.benchmarks.inverse_kinematics import InverseKinematics
from sbi_models.simulators.benchmarks.lotka_volterra import LotkaVolterra
from sbi_models.simulators.benchmarks.michelson import Michelson
from sbi_models.simulators.benchmarks.normal import NormalModel, NormalPosterior
from sbi_models.simulators.benchmarks.sir import SIR
from sbi_models.simulators.benchmarks.slcp import SLCP
from sbi_models.simulators.benchmarks.slcp_distractors import SLCPDistractors
from sbi_models.simulators.benchmarks.two_moons import TwoMoons

BENCHMARKS: dict[str, Benchmark] = {
    "bernoulli_glm": BernoulliGLM(),
    "bernoulli_glm_raw": BernoulliGLMRaw(),
    "gaussian_linear": GaussianLinear(),
    "gaussian_linear_uniform": GaussianLinearUniform(),
    "gaussian_mixture": GaussianMixture(),
    "hare_lynx": HareLynx(),
    "influenza": Influenza(),
    "inverse_kinematics": InverseKinematics(),
    "lotka_volterra": LotkaVolterra(),
    "sir": SIR(),
    "slcp": SLCP(),
    "slcp_distractors": SLCPDistractors(),
    "two_moons": TwoMoons(),
}
"""Models by name; the ten tasks of sbibm have sbibm's names."""

__all__ = [
    "BENCHMARKS",
    "SIR",
    "SLCP",
    "Benchmark",
    "BernoulliGLM",
    "BernoulliGLMRaw",
    "GaussianLinear",
    "GaussianLinearUniform",
    "GaussianMixture",
    "HareLynx",
    "Influenza",
    "InverseKinematics",
    "LotkaVolterra",
    "Michelson",
    "NormalModel",
    "NormalPosterior",
    "SLCPDistractors",
    "TractableBenchmark",
    "TwoMoons",
]
