"""Registries: things of one kind by name, which files, settings and strings may ask for, and nothing else."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from sbi_models.errors import ConfigurationError, suggest

T = TypeVar("T")
S = TypeVar("S")


class Registry(Mapping[str, T]):
    """Classes or functions of one kind by name; users add their own with the decorator `register`.

    Args:
        what: what one entry is called in messages, such as "network".

    >>> metrics: Registry[Callable[..., float]] = Registry("metric")
    >>> @metrics.register("twice")
    ... def twice(x: float) -> float:
    ...     return 2 * x
    >>> metrics.named("twice")(3)
    6
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[S], S]:
        """Decorator that adds a class or function under a name; the same one may be added again.

        Raises:
            ConfigurationError: if something else has the name.
        """

        def add(entry: S) -> S:
            taken = self._entries.get(name, entry)
            if taken is not entry and _place(taken) != _place(entry):
                raise ConfigurationError(
                    f"Expected a new name for a {self.what}, got {name!r}, which "
                    f"{'.'.join(_place(taken))} has. Choose another one."
                )
            self._entries[name] = entry
            return entry

        return add

    def named(self, name: str) -> T:
        """The entry of a name.

        Raises:
            ConfigurationError: if there is none, with the nearest name there is.
        """
        if name not in self._entries:
            raise ConfigurationError(f"Unknown {self.what} {name!r}. {suggest(str(name), self._entries)}")
        entry: T = self._entries[name]
        return entry

    def __getitem__(self, name: str) -> T:
        entry: T = self._entries[name]
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _place(entry: Any) -> tuple[str, str]:
    """Module and name of a class or function: a cell of a notebook that runs again defines the same one."""
    return str(getattr(entry, "__module__", "")), str(getattr(entry, "__qualname__", repr(entry)))
