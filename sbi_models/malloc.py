"""Thresholds of glibc's malloc: freed blocks are reused rather than returned to the system."""

import ctypes
import os
import platform
from functools import cache

_LARGEST_KEPT = 32 * 2**20
"""Bytes of the largest block that is taken from memory held already."""

_FREE_KEPT = 256 * 2**20
"""Bytes of free memory that are held."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_SETTINGS_OF_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Raise glibc's malloc thresholds so that up to 256 MiB of freed memory is reused; once a process.

    By itself glibc gives blocks of a layer's size back to the system after each use, and a training step has
    hundreds of page faults. Other C libraries are left alone, and so is a process whose environment has
    settings for malloc.

    Returns:
        Whether that was done; once a process.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SETTINGS_OF_USER):
        return False
    set_option = ctypes.CDLL(None).mallopt
    return bool(set_option(_M_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(
        set_option(_M_TRIM_THRESHOLD, _FREE_KEPT)
    )
