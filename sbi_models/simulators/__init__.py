"""Simulators: functions that draw parameters and data, made repeatable from one seed."""

import warnings
from typing import Any

from sbi_models.simulators.construction import make_simulator
from sbi_models.simulators.failures import Failure, FailurePolicy, FailureReport
from sbi_models.simulators.proposal import NormalProposal, SimulatorWithProposal
from sbi_models.simulators.simulator import Simulator

__all__ = [
    "Failure",
    "FailurePolicy",
    "FailureReport",
    "NormalProposal",
    "Simulator",
    "SimulatorWithProposal",
    "make_simulator",
]

_RENAMED = {"NarrowPrior": NormalProposal, "NarrowedSimulator": SimulatorWithProposal}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        new = _RENAMED[name]
        warnings.warn(
            f"sbi_models.simulators.{name} is now called {new.__name__}; the old name ends with version 0.3.",
            FutureWarning,
            stacklevel=2,
        )
        return new
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
