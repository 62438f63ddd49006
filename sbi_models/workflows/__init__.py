"""Workflows: simulate, train, sample and diagnose in one object."""

from sbi_models.training.history import History
from sbi_models.workflows.basic import BasicWorkflow
from sbi_models.workflows.composed_likelihood import ComparedReport
from sbi_models.workflows.compositional import CompositionalWorkflow
from sbi_models.workflows.ensemble import EnsembleWorkflow
from sbi_models.workflows.likelihood.report import PosteriorReport
from sbi_models.workflows.likelihood.workflow import LikelihoodWorkflow
from sbi_models.workflows.sequential import narrow, sequential_proposal

__all__ = [
    "BasicWorkflow",
    "ComparedReport",
    "CompositionalWorkflow",
    "EnsembleWorkflow",
    "History",
    "LikelihoodWorkflow",
    "PosteriorReport",
    "narrow",
    "sequential_proposal",
]
