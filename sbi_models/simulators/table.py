"""Table of simulations between two rows, block by block: everything that a worker needs to compute a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.ragged import as_ragged, fine_rows, is_ragged, joined, same_bits
from sbi_models.simulators.blocks import Block, alike, missing, one_row, refuse_loss, shapes_differ
from sbi_models.simulators.calls import FunctionFailed, NamedCall, like_before, normalized, spelt
from sbi_models.simulators.failures import Failure, FailurePolicy
from sbi_models.simulators.fixed_values import FixedValue
from sbi_models.simulators.randomness import Randomness
from sbi_models.types import Array, Variables


class RowProcesses(Protocol):
    """Processes that call the functions of a table; `isolation.Isolation` implements it."""

    def attempt(self, table: "Table", index: int, attempt: int) -> dict[str, Array]:
        """Outputs of one attempt at a block, as of `Table.attempt`."""
        ...


@dataclass(frozen=True)
class Table:
    """Rows `start` to `stop` of the table of `seed`; `Simulator` describes the other attributes."""

    calls: tuple[NamedCall, ...]
    is_batched: bool
    block_size: int
    policy: FailurePolicy
    seed: int
    start: int
    stop: int
    meta: NamedCall | None
    fixed: Mapping[str, FixedValue]
    sets_global_states: bool
    isolation: "RowProcesses | None" = None
    """Processes in which the functions are called; None for this process."""

    @cached_property
    def randomness(self) -> Randomness:
        """Random states of the functions in this process."""
        functions = [call.function for call in self.every_call]
        return Randomness(functions, with_global_states=self.sets_global_states)

    @property
    def every_call(self) -> tuple[NamedCall, ...]:
        """All functions in the order of their calls, `meta_fn` first."""
        return self.calls if self.meta is None else (self.meta, *self.calls)

    def __getstate__(self) -> dict[str, Any]:
        """State without attributes that belong to this process alone."""
        return {
            name: value for name, value in vars(self).items() if name not in ("randomness", "_is_settled")
        }

    @property
    def indices(self) -> range:
        """Indices of the blocks that hold the rows."""
        return range(self.start // self.block_size, -(-self.stop // self.block_size))

    def rows_of(self, index: int) -> range:
        """Rows of a block."""
        return range(index * self.block_size, (index + 1) * self.block_size)

    def asked_for(self, index: int) -> int:
        """Number of rows of a block between start and stop."""
        rows = self.rows_of(index)
        return min(rows.stop, self.stop) - max(rows.start, self.start)

    def block(self, index: int) -> Block:
        """Compute a block with its retries; every attempt of a row has its own stream."""
        first = self._tried(index, 0)
        if isinstance(first, FunctionFailed) or self.policy.non_finite:
            return self._after_retries(index, first)
        return Block(index, first, complete=True)

    def _tried(self, index: int, attempt: int) -> dict[str, Array] | FunctionFailed:
        try:
            return self._attempt(index, attempt)
        except FunctionFailed as failure:
            return failure

    def _after_retries(self, index: int, first: dict[str, Array] | FunctionFailed) -> Block:
        """Block after its retries, given the outcome of the first attempt."""
        rows = self.rows_of(index)
        failed = np.array([self.start <= row < self.stop for row in rows])
        block = Block(index, {}, complete=False)
        attempts = np.zeros(len(rows), dtype=int)
        causes: dict[int, str] = {}
        for attempt in range(self.policy.retries + 1):
            outcome = first if attempt == 0 else self._tried(index, attempt)
            if isinstance(outcome, FunctionFailed):
                bad, cause = np.ones(len(rows), dtype=bool), str(outcome)
                block.outputs = block.outputs if block.complete else outcome.outputs
                block.exception = outcome.exception
            else:
                bad, cause = self._not_finite(outcome)
                block.outputs, block.complete = self._merged(block.outputs, outcome, failed), True
                block.exception = None
            failed = failed & bad
            attempts += failed
            causes |= {int(offset): cause for offset in np.flatnonzero(failed)}
            if not failed.any():
                break
        block.failures = [
            Failure(rows[k], int(attempts[k]), not failed[k], causes[k]) for k in sorted(causes)
        ]
        return block

    def found_more(self) -> bool:
        """True if functions created a generator since the first block, so that later blocks may not repeat.

        The new generator is set from now on.
        """
        if not self.sets_global_states or "randomness" not in vars(self) or not self.randomness.has_more():
            return False
        del vars(self)["randomness"]
        return True

    def _attempt(self, index: int, attempt: int) -> dict[str, Array]:
        """Call the functions once for a block."""
        if self.isolation is not None:
            return self.isolation.attempt(self, index, attempt)
        return self.attempt(index, attempt)

    def attempt(self, index: int, attempt: int) -> dict[str, Array]:
        """Call the functions once for a block, in this process."""
        path = (index,) if attempt == 0 else (index, "attempt", attempt)
        outputs = self._called(index, path)
        if not vars(self).get("_is_settled"):
            if self.randomness.has_grown():
                del vars(self)["randomness"]
                outputs = self._called(index, path)
            vars(self)["_is_settled"] = True
        return outputs

    def _called(self, index: int, path: tuple[int | str, ...]) -> dict[str, Array]:
        self.randomness.seed(self.seed, "simulation", *path)
        supplied: dict[str, Any] = {"rng": seeding.generator(self.seed, "simulation", *path)}
        if self.is_batched:
            supplied |= {"batch_shape": (self.block_size,), "batch_size": self.block_size}
        context = {} if self.meta is None else self._context(self.meta, supplied, index)
        outputs: dict[str, Array] = {}
        for call in self.calls:
            new = self._output(call, {**context, **outputs, **supplied}, outputs)
            self._check(call, new, outputs)
            outputs |= (
                {key: self._fixed_or(key, value, index) for key, value in new.items()} if self.fixed else new
            )
        outputs |= {key: self._of_all_rows(value) for key, value in context.items() if key not in outputs}
        unknown = sorted(name for name in self.fixed if name not in outputs and spelt(name, outputs) is None)
        if unknown:
            raise ConfigurationError(
                f"No function returns {unknown[0]!r}, so it cannot be fixed. Known: "
                f"{', '.join(sorted(outputs))}."
            )
        return outputs

    def _output(
        self, call: NamedCall, available: Mapping[str, Any], outputs: dict[str, Array]
    ) -> dict[str, Array]:
        """What a function returns; its failure has the outputs of those before it."""
        self.begins(call, outputs)
        try:
            return call(available)
        except FunctionFailed as failure:
            failure.outputs = outputs
            raise

    def _context(self, meta: NamedCall, supplied: Mapping[str, Any], index: int) -> dict[str, Array]:
        """What `meta_fn` returns for a block, of the shape of one value, or what is fixed in its place."""
        batch = {"batch_shape": (self.block_size,), "batch_size": self.block_size}
        context = self._output(meta, {**batch, **supplied}, {})
        for key, value in context.items():
            if key in self.fixed:
                rows = {
                    row: self.fixed[key].like(value, range(row, row + 1), batched=False)
                    for row in self.rows_of(index)
                }
                if not all(
                    same_bits(np.asarray(other), np.asarray(rows[min(rows)])) for other in rows.values()
                ):
                    raise ConfigurationError(
                        f"Expected one value of {key!r} for all rows of a call of batched functions, got "
                        f"several in {self.named(index)}. Fix one for all, or pass block_size=1."
                    )
                context[key] = like_before(np.asarray(rows[min(rows)]), value)
        return context

    def context_names(self) -> tuple[str, ...]:
        """Names of the outputs of `meta_fn`, called for the first block."""
        assert self.meta is not None
        self.randomness.seed(self.seed, "simulation", 0)
        return tuple(self._context(self.meta, {"rng": seeding.generator(self.seed, "simulation", 0)}, 0))

    def _of_all_rows(self, value: Array) -> Array:
        """An output of `meta_fn` as one of the block, all rows of which have the same."""
        if not self.is_batched:
            return value
        if is_ragged(value):
            return as_ragged([value] * self.block_size)
        return np.repeat(value[None], self.block_size, axis=0)

    def begins(self, call: NamedCall, outputs: dict[str, Array]) -> None:
        """Hook before each call of a function, with the outputs of the functions before it."""

    def _fixed_or(self, key: str, value: Array, index: int) -> Array:
        name = next((name for name in self.fixed if name == key or spelt(name, [key])), None)
        return (
            value
            if name is None
            else like_before(self.fixed[name].like(value, self.rows_of(index), self.is_batched), value)
        )

    def _check(self, call: NamedCall, new: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        for key, value in new.items():
            if key in outputs:
                raise SimulationError(
                    f"Function {call.name!r} returns {key!r}, which an earlier function returned. "
                    "Rename one of them."
                )
            twin = (
                None
                if key.isascii()
                else spelt(normalized(key), [name for name in (*outputs, *new) if name != key])
            )
            if twin is not None:
                raise SimulationError(
                    f"Expected names that Python can tell apart as arguments, got {key!a} ({key}) "
                    f"and {twin!a} ({twin}). Rename one."
                )
            if self.is_batched and (value.ndim == 0 or len(value) != self.block_size):
                raise SimulationError(
                    f"Batched functions return one row a simulation: expected {key!r} of shape "
                    f"({self.block_size}, ...), got {value.shape}."
                )

    def _not_finite(self, outputs: Mapping[str, Array]) -> tuple[Array, str]:
        """Mask of rows with NaN or inf, if these count as failures, and the cause for messages."""
        bad, names = np.zeros(self.block_size, dtype=bool), []
        for key, value in outputs.items():
            if self.policy.non_finite and value.dtype.kind in "fO":
                here = ~fine_rows(value if self.is_batched else value[None], np.isfinite)
                names += [repr(key)] * bool(here.any())
                bad |= here
        return bad, f"{', '.join(names)} not finite"

    def _merged(self, old: dict[str, Array], new: dict[str, Array], failed: Array) -> dict[str, Array]:
        """New outputs, with the old values of rows that succeeded in an earlier attempt."""
        if not old or failed.all() or not self.is_batched:
            return new
        merged = {}
        for key, value in new.items():
            if key not in old:
                merged[key] = value
                continue
            if not alike(old[key], value):
                raise SimulationError(shapes_differ(key, {old[key].shape[1:], value.shape[1:]}))
            if is_ragged(value) or old[key].shape != value.shape:
                merged[key] = as_ragged([(value if bad else old[key])[row] for row, bad in enumerate(failed)])
                continue
            refuse_loss(key, [old[key].dtype, value.dtype], [old[key], value])
            keep = ~failed.reshape(-1, *[1] * (value.ndim - 1))
            merged[key] = np.where(keep, old[key], value)
        return merged

    def refuse_other(self, block: Block, whole: Block) -> None:
        """Raise SimulationError if variables or shapes of a block differ from those of a complete one.

        A failed block may lack variables.
        """
        if block.complete and (others := block.outputs.keys() ^ whole.outputs.keys()):
            has, lacks = (block, whole) if min(others) in block.outputs else (whole, block)
            raise SimulationError(
                f"Every simulation must return the same variables, got {min(others)!r} in "
                f"{self.named(has.index)} of seed {self.seed} and none in {self.named(lacks.index)}. Return "
                "all of them each time, for instance with a mask beside what may be missing."
            )
        for key, value in block.outputs.items():
            parts = [value, whole.outputs.get(key, value)]
            if not alike(*(part if self.is_batched else one_row(part) for part in parts)):
                shapes = {part.shape[1:] if self.is_batched else part.shape for part in parts}
                places = f", in {self.named(whole.index)} and {self.named(block.index)} of seed {self.seed}"
                raise SimulationError(shapes_differ(key, shapes, places))

    def named(self, index: int) -> str:
        """Rows of a block, for messages."""
        rows = self.rows_of(index)
        return f"row {rows.start}" if len(rows) == 1 else f"rows {rows.start} to {rows.stop - 1}"

    def joined(self, blocks: list[Block]) -> Variables:
        """Rows of all blocks in order, cut to start and stop; missing outputs of failed rows are NaN."""
        whole = next((block for block in blocks if block.complete), None)
        if whole is None:
            raise SimulationError(
                f"None of the {self.stop - self.start} simulations succeeded, so the shapes of their "
                f"outputs are unknown. The first: {blocks[0].failures[0].cause}."
            )
        table: Variables = {}
        skip = self.start - self.indices.start * self.block_size
        for block in blocks:
            self.refuse_other(block, whole)
        for key, value in whole.outputs.items():
            parts = [block.outputs[key] if key in block.outputs else missing(value) for block in blocks]
            refuse_loss(key, [part.dtype for part in parts], parts)
            rows = [part if self.is_batched else one_row(part) for part in parts]
            array = joined(rows)[skip : skip + self.stop - self.start]
            table[key] = (
                array if is_ragged(array) else np.asarray(array[:, None] if array.ndim == 1 else array)
            )
        return table


def refusal(table: Table, block: Block, failed: int) -> str:
    """Error for more failed rows than allowed, after the block of the last of them."""
    rows = table.rows_of(block.index)
    first = next(failure for failure in block.failures if not failure.recovered)
    whole_block = len(rows) > 1 and not block.complete
    what = (
        f"rows {rows.start} to {rows.stop - 1}, a block of batched functions,"
        if whole_block
        else f"row {first.row}"
    )
    attempts = "" if first.attempts == 1 else f" at each of {first.attempts} attempts"
    num_rows = table.stop - table.start
    return (
        f"Simulations fail: {what} of seed {table.seed}{attempts}: {first.cause}. Expected at most "
        f"{table.policy.limit(num_rows)} of {num_rows} rows to fail, got {failed} so far. See it again with "
        f"simulator.rows({first.row}, {first.row + 1}, seed={table.seed}). Mend the function, or let "
        "simulations fail: make_simulator(..., failures=FailurePolicy(retries=3, allowed=0.01))."
    )


def not_repeated(table: Table, index: int, what: str) -> str:
    """Message for a block that differed when it was computed again; empty if it did not."""
    if not what:
        return ""
    return (
        f"{what[0].upper()}{what[1:]} differ between two draws of {table.named(index)} of seed "
        f"{table.seed}. A function draws from what a seed does not reach (os.urandom, a generator inside of "
        "compiled code or of another program), or depends on time, a counter, or a file that it changes. "
        "Draw from its argument rng alone, a numpy.random.Generator, and hand other programs a seed from "
        "it: rng.integers(2**31)."
    )
