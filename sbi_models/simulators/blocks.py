"""Blocks of a table of simulations: outputs, comparison with other blocks, and how they may differ."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sbi_models.errors import SimulationError
from sbi_models.ragged import as_ragged, element_shapes, is_ragged, same_bits
from sbi_models.simulators.failures import Failure
from sbi_models.types import Array


@dataclass
class Block:
    """The simulations of one block, after their retries.

    Attributes:
        outputs: arrays by name, of the shape of one output if unbatched, else with a leading axis of all rows
            of the block.
        complete: False if every attempt ended in an exception, so that outputs are missing.
        failures: rows asked for that failed at least once.
        exception: exception of the last attempt, if rows failed for good and a function raised it.
    """

    index: int
    outputs: dict[str, Array]
    complete: bool
    failures: list[Failure] = field(default_factory=list)
    exception: BaseException | None = None

    @property
    def num_failed(self) -> int:
        """Number of rows that failed for good."""
        return sum(not failure.recovered for failure in self.failures)


def shapes_differ(key: str, shapes: set[tuple[int, ...]], places: str = "") -> str:
    """Error for outputs of several shapes, with their rows."""
    return (
        f"Every simulation must return {key!r} of one shape, got "
        f"{' and '.join(str(s) for s in sorted(shapes)[:2])}{places}. Only the number of elements of sets "
        "and series, N of (N, d), may differ; pad other outputs, and return a mask beside them."
    )


def alike(one: Array, other: Array) -> bool:
    """Whether rows of two blocks may be of one variable: of one shape, or of elements of one shape."""
    if is_ragged(one) or is_ragged(other):
        return element_shapes(one) == element_shapes(other)
    a, b = one.shape[1:], other.shape[1:]
    are_elements = min(len(a), len(b)) > 1 and a[1:] == b[1:]
    are_groups = len(a) == len(b) > 2 and a[2:] == b[2:]
    return a == b or are_elements or are_groups


def one_row(value: Array) -> Array:
    """The output of one simulation as that of a block of one row."""
    return as_ragged([value]) if is_ragged(value) else value[None]


def refuse_loss(key: str, dtypes: list[np.dtype[Any]], parts: list[Array]) -> None:
    """Raise SimulationError if no single type holds all values of a variable of several types."""
    if len(set(dtypes)) < 2 or any(dtype.hasobject for dtype in dtypes):
        return
    common = np.result_type(*dtypes)
    for part in parts:
        if (
            part.dtype.kind in "iu"
            and common.kind == "f"
            and not np.array_equal(part.astype(common).astype(part.dtype), part)
        ):
            raise SimulationError(
                f"Every simulation must return {key!r} of one type, got "
                f"{' and '.join(sorted(map(str, set(dtypes))))}, and integers among them that {common} does "
                f"not hold. Return one type always, such as np.float64({key})."
            )


def missing(like: Array) -> Array:
    if is_ragged(like):
        return as_ragged([missing(part) for part in like])
    return np.full(like.shape, np.nan, dtype=like.dtype if like.dtype.kind == "f" else np.float64)


def difference(a: Iterable[Block], b: Iterable[Block]) -> str:
    """Names of what differs, in any bit, between the same blocks computed twice."""
    for one, other in zip(a, b, strict=True):
        if list(one.outputs) != list(other.outputs) or one.failures != other.failures:
            return f"the outputs or failures of block {one.index}"
        for key, value in one.outputs.items():
            like = other.outputs[key]
            if not same_bits(value, like):
                return f"values of {key!r}"
    return ""
