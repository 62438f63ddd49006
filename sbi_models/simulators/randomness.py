"""Random states that simulator functions draw from, set to the stream of each row and restored afterwards.

A function gets a generator as its argument `rng`. It may also draw from the global states of NumPy, the
standard library and PyTorch, and from generators that it holds: all are set by seed and row, and have their
states back afterwards. What is left, such as `os.urandom`, the clock, or a generator inside of compiled code,
shows when a row is drawn twice.
"""

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np

from sbi_models import seeding
from sbi_models.simulators.generators import held_generators

_MIX = 0x9E3779B97F4A7C15
"""Odd number that derives several distinct seeds from one 64-bit seed."""

Undo = Callable[[], object]


class Randomness:
    """Generators that functions hold, and global states, as of its construction.

    Args:
        functions: functions that may hold generators.
        with_global_states: whether to set the global states too.
    """

    def __init__(self, functions: Iterable[Any], *, with_global_states: bool) -> None:
        self._functions, self._with_global_states = tuple(functions), with_global_states
        self.held, self.names_global_states = self._found()
        self._torch = _torch_generators()

    def _found(self) -> tuple[list[Any], bool]:
        """Generators that functions hold, in the same order everywhere, and whether they name global ones."""
        known = {id(_source(generator)) for generator in _global_generators()}
        reachable = held_generators(self._functions)
        held = [generator for generator in reachable if id(_source(generator)) not in known]
        return held, len(held) < len(reachable)

    def seed(self, seed: int, name: str, *path: str | int) -> None:
        """Set all states to the start of the stream of a path."""
        if self._with_global_states:
            number = seeding.derive(seed, f"{name}, global state", *path)
            np.random.seed(number % 2**32)  # noqa: NPY002 - for functions that use it
            random.seed(number * _MIX % 2**64)
            for k, generator in enumerate(self._torch, start=1):
                generator.manual_seed((number + k) * _MIX % 2**63)
        for k, generator in enumerate(self.held):
            _set(generator, seeding.derive(seed, f"{name}, held", k, *path))

    def has_grown(self) -> bool:
        """True if there are more states to set than at construction.

        Functions may import PyTorch, or create a generator, when they are first called.
        """
        return len(_torch_generators()) != len(self._torch) or [*map(id, self._found()[0])] != [
            *map(id, self.held)
        ]

    def has_more(self) -> bool:
        """True if functions hold more generators than at construction.

        Generators in the place of others are set by what functions draw from.
        """
        return len(self._found()[0]) > len(self.held)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Context manager that restores all states afterwards."""
        states = [*self.held, *(_global_generators() if self._with_global_states else [])]
        undo = [_undo(generator) for generator in states]
        try:
            yield
        finally:
            for put_back in undo:
                put_back()


def fresh_seed_of(generator: Any) -> int:
    """Draw a seed from a generator and advance it."""
    if isinstance(generator, random.Random):
        return generator.getrandbits(63)
    if isinstance(generator, np.random.BitGenerator):
        return int(np.random.Generator(generator).integers(2**63 - 1))
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(2**63 - 1))
    if isinstance(generator, np.random.RandomState):
        return int(generator.randint(2**63 - 1, dtype=np.int64))
    torch = sys.modules["torch"]
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


def global_states() -> dict[str, Any]:
    """Present global random states by library, for comparison."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    states = {
        "NumPy": [str(numpy_state), numpy_state["state"]["key"].tolist()],
        "the standard library": random.getstate(),
    }
    return states | {
        f"PyTorch ({generator.device})": generator.get_state().tolist() for generator in _torch_generators()
    }


def _source(generator: Any) -> Any:
    """Bit generator of a NumPy generator, which several may share."""
    return (
        getattr(generator, "bit_generator", None) or getattr(generator, "_bit_generator", None) or generator
    )


def _global_generators() -> list[Any]:
    """Global generators of NumPy, of the standard library, and of PyTorch if it is imported."""
    return [np.random.mtrand._rand, random._inst, *_torch_generators()]


def _torch_generators() -> list[Any]:
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "default_generator"):  # while it is imported
        return []
    return [torch.default_generator, *(torch.cuda.default_generators if torch.cuda.is_initialized() else ())]


def _set(generator: Any, number: int) -> None:
    if isinstance(generator, random.Random):
        generator.seed(number)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(
            np.random.RandomState(_started(generator, number)).get_state(legacy=False)
        )  # and no normal left over
    elif isinstance(generator, np.random.Generator | np.random.BitGenerator):
        _source(generator).state = _started(generator, number).state
    else:
        generator.manual_seed(number)


def _started(generator: Any, number: int) -> np.random.BitGenerator:
    """New bit generator of the same kind at the start of a stream."""
    kind = type(_source(generator))
    return cast(np.random.BitGenerator, kind(number))


def _undo(generator: Any) -> Undo:
    """Function that restores the present state of a generator."""
    if isinstance(generator, random.SystemRandom):
        return lambda: None  # it has none
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return partial(generator.set_state, generator.get_state(legacy=False))
    if isinstance(generator, np.random.Generator | np.random.BitGenerator):
        source = _source(generator)
        return partial(setattr, source, "state", source.state)
    return partial(generator.set_state, generator.get_state())
