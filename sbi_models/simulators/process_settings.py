"""Restore settings of the process that simulator functions may change."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np


@contextmanager
def settings_kept() -> Iterator[None]:
    """Context manager that restores the process settings which functions change.

    These are the current folder, output streams, recursion limit, NumPy's floating-point error handling, and
    default dtype, threads and gradient mode of PyTorch.

    Environment variables and filters of warnings are left as they are: libraries set them when they are
    imported, which happens once.
    """
    undo = list(_undo())
    try:
        yield
    finally:
        for put_back in undo:
            put_back()


def _undo() -> Iterator[Callable[[], object]]:
    with suppress(OSError):  # a folder that was removed
        yield partial(_back_to, os.getcwd())
    yield partial(np.seterr, **np.geterr())
    yield partial(sys.setrecursionlimit, sys.getrecursionlimit())
    if (
        threading.current_thread() is threading.main_thread()
    ):  # in others, it may be a progress bar that has them meanwhile
        yield partial(setattr, sys, "stdout", sys.stdout)
        yield partial(setattr, sys, "stderr", sys.stderr)
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_grad_enabled"):  # not while it is imported
        yield partial(_set_back, torch.get_default_dtype, torch.set_default_dtype, torch.get_default_dtype())
        yield partial(_set_back, torch.get_num_threads, torch.set_num_threads, torch.get_num_threads())
        yield partial(_set_back, torch.is_grad_enabled, torch.set_grad_enabled, torch.is_grad_enabled())


def _set_back(present: Callable[[], Any], put: Callable[[Any], object], before: Any) -> None:
    if present() != before:
        put(before)


def _back_to(folder: str) -> None:
    with suppress(OSError):
        if os.getcwd() == folder:
            return
    os.chdir(folder)
