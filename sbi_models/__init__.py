"""Amortized simulation-based inference: simulate, train, diagnose, register, infer.

Public names are fetched when they are first used, so that `import sbi_models` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_models import (
        adapters,
        approximators,
        diagnostics,
        errors,
        networks,
        simulators,
        tracking,
        workflows,
    )
    from sbi_models.adapters import Adapter
    from sbi_models.simulators import Simulator, make_simulator
    from sbi_models.tracking import load
    from sbi_models.workflows import (
        BasicWorkflow,
        CompositionalWorkflow,
        EnsembleWorkflow,
        History,
        LikelihoodWorkflow,
    )

__version__ = "0.2.0"

__all__ = [
    "Adapter",
    "BasicWorkflow",
    "CompositionalWorkflow",
    "EnsembleWorkflow",
    "History",
    "LikelihoodWorkflow",
    "Simulator",
    "adapters",
    "approximators",
    "diagnostics",
    "errors",
    "load",
    "make_simulator",
    "networks",
    "simulators",
    "tracking",
    "workflows",
]

_HOMES = {
    "Adapter": "adapters",
    "BasicWorkflow": "workflows",
    "CompositionalWorkflow": "workflows",
    "EnsembleWorkflow": "workflows",
    "History": "workflows",
    "LikelihoodWorkflow": "workflows",
    "Simulator": "simulators",
    "load": "tracking",
    "make_simulator": "simulators",
}


def __getattr__(name: str) -> Any:
    """The public name, from the module that defines it (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
