"""Prefetching: a thread computes the next item while the present one is used."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")

_END = object()


def prefetched(items: Iterable[T]) -> Iterator[T]:
    """Iterate over items that a thread computes one ahead; an error is raised in the place of its item."""
    iterator, context = iter(items), copy_context()  # with it, NumPy's treatment of floating point errors

    def make() -> object:
        return context.run(next, iterator, _END)

    with ThreadPoolExecutor(max_workers=1) as maker:
        coming = maker.submit(make)
        while (item := coming.result()) is not _END:
            coming = maker.submit(make)
            yield item  # type: ignore[misc]
