"""Detection of lost steps: `adapter.log("x")` in place of `adapter = adapter.log("x")`.

An adapter knows the one that it was made from. When it is let go and nobody has ever looked at its steps, nor
at those of one made from it, it tells that one. Nothing is lost by that until an adapter without such a step
is to be used.
"""

from collections.abc import Iterable
from typing import Any, Self

from sbi_models.adapters.transforms import Transform
from sbi_models.errors import ConfigurationError


class WithHistory:
    """Steps in a tuple, what these come from, and what was made of them and let go."""

    def __init__(self, transforms: Iterable[Transform] = ()) -> None:
        self._transforms = tuple(transforms)
        self._before: WithHistory | None = None
        self._is_used, self._children = False, 0
        self._lost: list[Transform] = []

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The steps, in order."""
        self._is_used = True
        return self._transforms

    def followed_by(self, *transforms: Transform) -> Self:
        """A new adapter with the same steps and further ones."""
        if not transforms:
            return self
        after = type(self)((*self._transforms, *transforms))
        after._before = self
        self._children += 1
        return after

    def __del__(self) -> None:
        before = getattr(self, "_before", None)
        if before is not None and not self._is_used and not self._children:
            before._children -= 1
            before._lost += [*self._transforms[len(before._transforms) :], *self._lost]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(transform.kind for transform in self.transforms)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.transforms,)

    def check_kept(self) -> None:
        """Raise ConfigurationError if a step was added to this adapter, or to a predecessor, and was lost."""
        present = [(transform.kind, transform.config()) for transform in self.transforms]
        lost: list[Transform] = []
        adapter: WithHistory | None = self
        while adapter is not None:
            lost, adapter = [*adapter._lost, *lost], adapter._before
        lost = [transform for transform in lost if (transform.kind, transform.config()) not in present]
        if lost:
            raise ConfigurationError(
                f"Expected an adapter with every step that was added to it; {lost[0].kind} "
                f"{lost[0].config()} was thrown away. Adapters do not change; their methods return new "
                f"ones: adapter = adapter.{lost[0].kind}(...). If it is not wanted, leave it out, or pass "
                "Adapter(adapter.transforms)."
            )
