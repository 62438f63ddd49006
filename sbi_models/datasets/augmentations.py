"""Data augmentation of raw training batches, such as added noise, drawn anew in every step.

It happens before the adapter, and never to validation data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.ragged import real_or_ragged
from sbi_models.torch_defaults import as_user
from sbi_models.types import Array, Variables

BatchFunction = Callable[[Variables], Variables]
Augmentations = BatchFunction | Mapping[str, Callable[[Array], Array]] | Sequence[BatchFunction]
"""A function of the batch, a function for some variables each, or several functions of the batch in order."""


class Augment:
    """Apply augmentations to a copy of a batch; draws from NumPy's global state are repeatable.

    Raises:
        ConfigurationError: for something that is none of the three forms.

    >>> augment = Augment({"x": lambda x: x + np.random.normal(size=x.shape)}, seed=1)
    >>> batch = {"x": np.zeros((2, 3))}
    >>> bool((augment(batch, 0)["x"] == augment(batch, 0)["x"]).all()), bool(batch["x"].any())
    (True, False)
    """

    def __init__(self, augmentations: Augmentations, seed: int) -> None:
        self.seed, self.described_by = seed, augmentations
        self.by_name: Mapping[str, Callable[[Array], Array]] = (
            augmentations if isinstance(augmentations, Mapping) else {}
        )
        if callable(augmentations):
            self.functions: tuple[BatchFunction, ...] = (augmentations,)
        elif isinstance(augmentations, Sequence):
            self.functions = tuple(augmentations)
        else:
            self.functions = ()
        unusable = [f for f in (*self.by_name.values(), *self.functions) if not callable(f)]
        if unusable or not (self.by_name or self.functions):
            raise ConfigurationError(
                "Expected augmentations as a function of the batch, a dict of variable names to functions, "
                f"or a list of functions of the batch, got {augmentations!r}."
            )

    def __call__(self, batch: Variables, *step: int) -> Variables:
        """Augmented batch of one step, or one step and member: name to array (n, ...), raw space.

        The batch itself is unchanged.
        """
        batch = {name: np.array(value) for name, value in batch.items()}
        rows = {name: len(value) for name, value in batch.items()}
        with _global_state(seeding.derive(self.seed, "augmentations", *step)):
            for function in self.functions:
                batch = _batch_of(as_user(function, batch), function)
            for name, function_of_one in self.by_name.items():
                if name not in batch:
                    raise DataError(
                        f"The augmentation of {name!r} finds no such variable in the batch. "
                        f"{suggest(name, batch)}"
                    )
                batch[name] = _not_none(as_user(function_of_one, batch[name]), function_of_one)
        batch = {name: real_or_ragged(value, f"the augmented {name!r}") for name, value in batch.items()}
        for name, number in rows.items():
            if name in batch and len(batch[name]) != number:
                raise DataError(
                    f"Expected augmentations to keep the {number} rows of {name!r}, got {len(batch[name])}."
                )
        return batch


def _batch_of(result: Any, function: Callable[..., Any]) -> Variables:
    if not isinstance(_not_none(result, function), Mapping):
        raise DataError(
            f"Expected the augmentation {_name(function)} to return the batch, a dict, got "
            f"{type(result).__name__}."
        )
    return dict(result)


def _not_none(result: Any, function: Callable[..., Any]) -> Any:
    if result is None:
        raise DataError(
            f"The augmentation {_name(function)} returns nothing. End it with a return of what it "
            "has changed."
        )
    return result


def _name(function: Callable[..., Any]) -> str:
    return repr(getattr(function, "__name__", type(function).__name__))


@contextmanager
def _global_state(seed: int) -> Iterator[None]:
    """Seed NumPy's global state, which plain functions use, and restore it afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
