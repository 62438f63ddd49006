"""Datasets: batches of tensors without per-item Python, and simulations on disk."""

from sbi_models.datasets.offline import Batches
from sbi_models.datasets.online import OnlineBatches
from sbi_models.datasets.store import SimulationStore

__all__ = ["Batches", "OnlineBatches", "SimulationStore"]
