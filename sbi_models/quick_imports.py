"""Imports of large packages without the garbage collections that take a third of their time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports(*, freeze: bool = False) -> Iterator[None]:
    """Import large packages without garbage collection, which would look through all that is there again and
    again.

    Collection goes on afterwards if it was on before.

    Args:
        freeze: what is there by then is not looked through later either, which also shortens the end of the
            process. For programs: a library does not know what garbage its user has.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if collecting:
            gc.enable()
