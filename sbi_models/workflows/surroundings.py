"""What surrounds a training: the number of threads, and Lightning's chatter."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from sbi_models.allocation import keep_freed_memory

P = ParamSpec("P")
R = TypeVar("R")


_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities")
_HINTS = (
    ".*(does not have many workers|treespec|number of training batches|no `val_dataloader`|`training_step` returned"
    "|find_unused_parameters=True was specified).*"
)


def on_own_threads(fit: Callable[P, R]) -> Callable[P, R]:
    """For a whole fit, let PyTorch use the workflow's number of CPU threads, on which sums, and so moments, depend in the last bits, and
    keep the memory that a step frees for the next one."""

    @wraps(fit)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        workflow: Any = args[0]
        before = torch.get_num_threads()
        torch.set_num_threads(workflow.threads)
        keep_freed_memory()
        try:
            return fit(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return wrapped


def quiet_for_good() -> None:
    """Keep them off the screen in a process that does nothing but train."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=_HINTS)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's adverts, hardware lines and hints about data loaders that we do not use off the screen."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            quiet_for_good()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
