"""Simulators: functions that draw parameters and data, made repeatable from one seed."""

from sbi_models.simulators.failures import Failure, FailurePolicy, FailureReport
from sbi_models.simulators.proposal import NarrowedSimulator, NarrowPrior
from sbi_models.simulators.simulator import Simulator, make_simulator

__all__ = [
    "Failure",
    "FailurePolicy",
    "FailureReport",
    "NarrowPrior",
    "NarrowedSimulator",
    "Simulator",
    "make_simulator",
]
