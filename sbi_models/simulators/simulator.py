"""A simulator is an endless table of simulations: row i of seed s is the same however, and by whomever, it is computed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from operator import index
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, SimulationError
from sbi_models.progress import progress_bar
from sbi_models.simulators.calls import NamedCall
from sbi_models.types import Array, Variables

Function = Callable[..., Mapping[str, Any]]

_ROWS_BEFORE_PROGRESS = 20_000


class Simulator:
    """Functions called one after the other, each with the outputs of the earlier ones by name.

    Row i of the table that a seed defines is a function of the seed and i alone: `sample(100, seed=1)` starts with the rows of
    `sample(10, seed=1)`, and any worker can compute any rows. Unbatched functions get a stream of random numbers per row; batched
    ones are called on aligned blocks of `block_size` rows with a stream per block.

    Args:
        functions: functions, `functools.partial` objects or callable objects, in order. Each returns a dict of names to arrays.
            An argument named `rng` receives a `numpy.random.Generator`; functions without one may use NumPy's global state, which is
            seeded for them and put back afterwards. Batched functions may take `batch_shape` (a tuple) or `batch_size` (an int).
        meta_fn: called once a batch, that is, for each call of `sample` or `rows`; its outputs are shared by all simulations of the
            batch. Rows then depend on where their batch begins, too.
        is_batched: True if each function simulates many rows in one call, with a leading batch axis in and out.
        block_size: rows in one call of the batched functions.

    Raises:
        ConfigurationError: for something that is not callable, or no function at all.
    """

    def __init__(
        self, functions: Sequence[Function], *, meta_fn: Function | None = None, is_batched: bool = False, block_size: int = 256
    ) -> None:
        if not functions:
            raise ConfigurationError("Expected at least one function, got none. Pass for instance make_simulator([prior, likelihood]).")
        if block_size < 1:
            raise ConfigurationError(f"Expected block_size of at least 1, got {block_size}.")
        self.calls = tuple(NamedCall(function) for function in functions)
        self.meta = None if meta_fn is None else NamedCall(meta_fn)
        self.is_batched = is_batched
        self.block_size = block_size if is_batched else 1

    def sample(
        self, batch_shape: int | tuple[int, ...], *, seed: int | None = None, progress: bool | None = None, **fixed: Any
    ) -> Variables:
        """Draw simulations.

        Args:
            batch_shape: how many, an int or the leading axes as a tuple.
            seed: None takes one from NumPy's global state, so that `np.random.seed` governs such calls.
            progress: show a progress bar; None shows one for more than 20 000 simulations.
            fixed: values that replace outputs of that name before later functions see them: one for all, of the shape of one output,
                or one a simulation, with the batch axes in front.

        Returns:
            Name to array of shape `batch_shape + shape of one output`, raw space. Scalars get a trailing axis of length 1.
        """
        shape = _as_shape(batch_shape)
        n = prod(shape)
        flat = {key: _flattened(np.asarray(value), shape) for key, value in fixed.items()}
        rows = self.rows(0, n, seed=seeding.resolve(seed), progress=progress, **flat)
        return {key: value.reshape(*shape, *value.shape[1:]) for key, value in rows.items()}

    def rows(self, start: int, stop: int, *, seed: int, progress: bool | None = None, **fixed: Any) -> Variables:
        """Rows `start` to `stop` (exclusive) of the table of `seed`: arrays of shape `(stop - start, ...)`, raw space."""
        first, last = start // self.block_size, -(-stop // self.block_size)
        values = {key: _FixedValue(key, np.asarray(value), start, stop) for key, value in fixed.items()}
        blocks = []
        show = None if progress or (progress is None and stop - start > _ROWS_BEFORE_PROGRESS) else False
        with progress_bar("simulate", stop - start, show=show) as advance, self._global_state_kept():
            meta = self._meta(seed, start, stop)
            for block in range(first, last):
                blocks.append(self._block(block, seed, meta, values))
                advance(min(self.block_size, stop - start))
        joined = _join(blocks, start - first * self.block_size, stop - start, batched=self.is_batched)
        return joined | {key: np.repeat(np.atleast_1d(value)[None], stop - start, 0) for key, value in meta.items() if key not in joined}

    def _meta(self, seed: int, start: int, stop: int) -> dict[str, Array]:
        """What the batch of rows start..stop shares; another batch has another draw."""
        if self.meta is None:
            return {}
        if self._uses_global_state:
            np.random.seed(seeding.derive(seed, "meta, global state", start) % 2**32)  # noqa: NPY002 - for a meta_fn without rng
        return self.meta({"rng": seeding.generator(seed, "meta", start), "batch_shape": (stop - start,)})

    def _block(self, block: int, seed: int, meta: Mapping[str, Any], fixed: "Mapping[str, _FixedValue]") -> dict[str, Array]:
        rng = seeding.generator(seed, "simulation", block)
        if self._uses_global_state:
            np.random.seed(seeding.derive(seed, "simulation, global state", block) % 2**32)  # noqa: NPY002 - for functions without rng
        supplied: dict[str, Any] = {"rng": rng}
        if self.is_batched:
            supplied |= {"batch_shape": (self.block_size,), "batch_size": self.block_size}
        outputs: dict[str, Array] = {}
        for call in self.calls:
            new = call({**meta, **outputs, **supplied})
            for key in new:
                if key in outputs:
                    raise SimulationError(
                        f"Function {call.name!r} returns {key!r}, which an earlier function returned. Rename one of them."
                    )
            rows = range(block * self.block_size, (block + 1) * self.block_size)
            outputs |= {key: fixed[key].like(value, rows, self.is_batched) if key in fixed else value for key, value in new.items()}
        unknown = sorted(set(fixed) - set(outputs))
        if unknown:
            raise ConfigurationError(f"No function returns {unknown[0]!r}, so it cannot be fixed. Known: {', '.join(sorted(outputs))}.")
        if self.is_batched:
            self._check_batch_axis(outputs)
        return outputs

    def _check_batch_axis(self, outputs: Mapping[str, Array]) -> None:
        for key, value in outputs.items():
            if value.ndim == 0 or len(value) != self.block_size:
                raise SimulationError(
                    f"Batched functions return one row a simulation: expected {key!r} of shape ({self.block_size}, ...), got {value.shape}."
                )

    @property
    def _uses_global_state(self) -> bool:
        calls = self.calls if self.meta is None else (*self.calls, self.meta)
        return not all(call.takes_rng for call in calls)

    @contextmanager
    def _global_state_kept(self) -> Iterator[None]:
        if not self._uses_global_state:
            yield
            return
        state = np.random.get_state()  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def make_simulator(
    functions: Function | Sequence[Function] | Simulator,
    meta_fn: Function | None = None,
    *,
    is_batched: bool = False,
    block_size: int = 256,
) -> Simulator:
    """A simulator from one function or several; a simulator is returned as it is. Arguments as for `Simulator`.

    >>> def prior(rng): return {"theta": rng.normal(size=2)}
    >>> def likelihood(theta, rng): return {"x": rng.normal(theta[0], 1.0, size=(20, 1))}
    >>> simulator = make_simulator([prior, likelihood])
    >>> {name: value.shape for name, value in simulator.sample(3, seed=1).items()}
    {'theta': (3, 2), 'x': (3, 20, 1)}
    """
    if isinstance(functions, Simulator):
        return functions
    sequence = list(functions) if isinstance(functions, Sequence) else [functions]
    return Simulator(sequence, meta_fn=meta_fn, is_batched=is_batched, block_size=block_size)


def _as_shape(batch_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    try:
        shape = tuple(index(n) for n in batch_shape) if isinstance(batch_shape, tuple) else (index(batch_shape),)
    except TypeError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ConfigurationError(f"Expected a positive number of simulations, or a tuple of them, got {batch_shape!r}.")
    return shape


def _flattened(value: Array, shape: tuple[int, ...]) -> Array:
    """A fixed value with several leading batch axes, with one of them."""
    if len(shape) > 1 and value.shape[: len(shape)] == shape:
        return value.reshape(prod(shape), *value.shape[len(shape) :])
    return value


class _FixedValue:
    """A value in place of an output: one for all simulations, of the shape of one output, or one each, with a leading axis."""

    def __init__(self, key: str, value: Array, start: int, stop: int) -> None:
        self.key, self.value, self.start, self.num_rows = key, value, start, stop - start

    def like(self, output: Array, rows: range, batched: bool) -> Array:
        """The value for some rows (one, unless batched), in the shape of the output that it replaces."""
        row_shape = output.shape[1:] if batched else output.shape
        value = self.value
        if value.shape == (self.num_rows, 1) and not row_shape:
            value = value[:, 0]  # as `sample` returns scalars
        if value.shape == row_shape or (not value.ndim and row_shape == (1,)):
            return np.broadcast_to(value, output.shape)
        if value.shape != (self.num_rows, *row_shape):
            raise ConfigurationError(
                f"Expected the fixed {self.key!r} of shape {row_shape} (one for all) or {(self.num_rows, *row_shape)} (one a simulation), "
                f"got {self.value.shape}."
            )
        chosen = np.clip(np.arange(rows.start, rows.stop) - self.start, 0, self.num_rows - 1)
        return np.asarray(value[chosen] if batched else value[chosen[0]])


def _join(blocks: list[dict[str, Array]], skip: int, n: int, *, batched: bool) -> Variables:
    """Put blocks together and cut out the `n` rows after the first `skip`."""
    joined: Variables = {}
    for key in blocks[0]:
        parts = [block[key] for block in blocks]
        shapes = {part.shape for part in parts}
        if len(shapes) > 1:
            raise SimulationError(
                f"Every simulation must return {key!r} of one shape, got {' and '.join(str(s) for s in sorted(shapes)[:2])}. "
                "Pad ragged outputs and return a mask beside them."
            )
        array = np.concatenate(parts)[skip : skip + n] if batched else np.stack(parts)
        joined[key] = array[:, None] if array.ndim == 1 else array
    return joined
