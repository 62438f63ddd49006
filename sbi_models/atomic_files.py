"""Atomic file writes: a file is there whole or not at all, whoever is killed while writing."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context with a temporary path beside `path`; what was written there becomes `path` at its end.

    Host, process and thread are part of the temporary name, so that any number of writers may write the same
    file at once. After an error, `path` is what it was, and nothing of the write stays.

    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "numbers.txt"
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("1 2 3")
    >>> path.read_text()
    '1 2 3'
    """
    temporary = path.with_name(
        f".{path.name}.{socket.gethostname()}.{os.getpid()}.{threading.get_native_id()}.partial"
    )
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # after os.replace it is gone; after a refused write it never was
            temporary.unlink()
