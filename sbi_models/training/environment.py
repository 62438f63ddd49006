"""Surroundings of a training: CPU threads, freed memory, available devices, Lightning's messages."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from sbi_models.errors import ConfigurationError
from sbi_models.malloc import keep_freed_memory
from sbi_models.training.settings import TrainingSettings

P = ParamSpec("P")
R = TypeVar("R")

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities")
_HINTS = (
    ".*(does not have many workers|treespec|number of training batches|no `val_dataloader`|`training_step` "
    "returned|find_unused_parameters=True was specified).*"
)


def on_own_threads(fit: Callable[P, R]) -> Callable[P, R]:
    """Decorator of fit methods: the workflow's CPU threads, freed memory kept, missing GPUs an error.

    Sums, and so moments, depend on the number of threads in their last bits. The memory that a step frees is
    kept for the next one. A GPU that is asked for and not there is an error before anything starts.
    """

    @wraps(fit)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        workflow: Any = args[0]
        check_accelerator(workflow.settings)
        before = torch.get_num_threads()
        torch.set_num_threads(workflow.threads)
        keep_freed_memory()
        try:
            with torch.enable_grad():
                return fit(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return wrapped


def check_accelerator(settings: TrainingSettings) -> None:
    """Raise ConfigurationError unless the GPUs that a training asks for are there."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if settings.accelerator == "gpu" and not there:
        raise ConfigurationError(
            "Expected a GPU that PyTorch can use (CUDA or ROCm, which have double precision) with "
            'accelerator="gpu", got none. Pass accelerator="auto", which trains on a CPU where there is no '
            "GPU, or install a driver and a build of PyTorch for the GPU."
        )
    if settings.accelerator != "cpu" and there and settings.devices != "auto" and settings.devices > there:
        raise ConfigurationError(
            f"Expected at most the {there} GPUs that there are, got devices={settings.devices!r}. Pass "
            'devices="auto" for all of them, or accelerator="cpu".'
        )


def quiet_for_good() -> None:
    """Silence Lightning for good, in a process that does nothing but train."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=_HINTS)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's adverts, hardware lines and hints about data loaders, for a while."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            quiet_for_good()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
