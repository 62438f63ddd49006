"""Datasets: batches of tensors without per-item Python, and simulations on disk."""

from sbi_models.datasets.augmentations import Augment, Augmentations
from sbi_models.datasets.disk import DiskBatches, PerFile, SimulationFiles
from sbi_models.datasets.duplicates import num_shared
from sbi_models.datasets.files import LoadFunction, read_file
from sbi_models.datasets.flat_arrays import from_arrays, to_arrays
from sbi_models.datasets.offline import Batches
from sbi_models.datasets.online import OnlineBatches
from sbi_models.datasets.prepared import PreparedBatches
from sbi_models.datasets.sharing import RingBatches, Sharing
from sbi_models.datasets.store import SimulationStore

__all__ = [
    "Augment",
    "Augmentations",
    "Batches",
    "DiskBatches",
    "LoadFunction",
    "OnlineBatches",
    "PerFile",
    "PreparedBatches",
    "RingBatches",
    "Sharing",
    "SimulationFiles",
    "SimulationStore",
    "from_arrays",
    "num_shared",
    "read_file",
    "to_arrays",
]
