"""Workflows: simulate, train, sample and diagnose in one object."""

from sbi_models.training.history import History
from sbi_models.workflows.basic import BasicWorkflow
from sbi_models.workflows.compositional import CompositionalWorkflow
from sbi_models.workflows.ensemble import EnsembleWorkflow
from sbi_models.workflows.sequential import narrow, sequential_proposal

__all__ = [
    "BasicWorkflow",
    "CompositionalWorkflow",
    "EnsembleWorkflow",
    "History",
    "narrow",
    "sequential_proposal",
]
