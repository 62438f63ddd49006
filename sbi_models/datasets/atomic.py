"""Atomic writes and locks: files appear whole or not at all, with any number of processes and kills."""

import errno
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from sbi_models.atomic_files import replacing
from sbi_models.errors import DataError

Chunk = bytes | memoryview

_SECONDS_OF_A_WRITE = 3600
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


def write_atomically(path: Path, chunks: Iterable[Chunk]) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it.

    An interrupted write leaves nothing.

    Raises:
        DataError: the disk is full, read-only, or refuses otherwise.
    """
    with refused_writes(path), replacing(path) as temporary, open(temporary, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def refused_writes(path: Path) -> Iterator[None]:
    """Context manager that turns OS errors into a DataError of one line that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}. Finished shards are kept: free space on that "
            "disk, or make it writable, and the same command goes on from there."
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed writers.

    These are files of processes of this host that are gone, and of any host that are an hour old.
    """
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):  # another process removes it at the same time, or only its owner may
            if time.time() - partial.stat().st_mtime > _SECONDS_OF_A_WRITE or _writer_is_dead(partial):
                partial.unlink()


def _writer_is_dead(partial: Path) -> bool:
    before, _, after = partial.name.partition(f".{socket.gethostname()}.")
    pid = after.partition(".")[0]
    if not before or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock for one process at a time; no lock on file systems without locks."""
    lock = FileLock(folder / ".lock")
    with refused_writes(folder / ".lock"):
        try:
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        lock.release()
