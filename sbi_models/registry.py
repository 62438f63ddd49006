"""Registries of networks, transforms, samplers and all else that files, settings and strings name."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from sbi_models.errors import ConfigurationError, suggest

T = TypeVar("T")
S = TypeVar("S")


class Registry(Mapping[str, T]):
    """Entries of one kind by name, in the order of their registration; users add their own with `register`.

    Args:
        what: term for one entry in messages, such as "network".
        attribute: class attribute that holds the name of a registered class; None for none.

    >>> metrics: Registry[Callable[..., float]] = Registry("metric")
    >>> @metrics.register("double")
    ... def double(x: float) -> float:
    ...     return 2 * x
    >>> metrics.named("double")(3)
    6
    """

    def __init__(self, what: str, *, attribute: str | None = None) -> None:
        self.what, self.attribute = what, attribute
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[S], S]:
        """Decorator that adds a class, a function or an instance under a name.

        The same class or function, from the same place, may be registered again, as a notebook does.

        Raises:
            ConfigurationError: if the name is no text, or another entry has it.
        """
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"Expected a name for a {self.what} as text, got {name!r}.")

        def add(entry: S) -> S:
            if name in self._entries and not self.holds(name, entry):
                raise ConfigurationError(
                    f"Expected a new name for a {self.what}, got {name!r}, which "
                    f"{'.'.join(_place(self._entries[name]))} has. Choose another name."
                )
            if self.attribute is not None:
                setattr(entry, self.attribute, name)
            self._entries[name] = entry
            return entry

        return add

    def named(self, name: str) -> T:
        """The entry of a name.

        Raises:
            ConfigurationError: if there is none, with the nearest name there is.
        """
        if not isinstance(name, str) or name not in self._entries:
            raise ConfigurationError(f"Unknown {self.what} {name!r}. {suggest(str(name), self._entries)}")
        entry: T = self._entries[name]
        return entry

    def holds(self, name: str, entry: Any) -> bool:
        """Whether the name belongs to this entry, or to an earlier definition at the same place."""
        registered = self._entries.get(name)
        return registered is entry or (registered is not None and _place(registered) == _place(entry))

    def __getitem__(self, name: str) -> T:
        entry: T = self._entries[name]
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _place(entry: Any) -> tuple[str, str]:
    """Module and qualified name of a class or function, module and representation of an instance."""
    return str(getattr(entry, "__module__", "")), str(getattr(entry, "__qualname__", repr(entry)))
