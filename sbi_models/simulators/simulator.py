"""Simulators: rows of an endless table, each a function of seed and row number, whoever computes it."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from sbi_models import seeding
from sbi_models.arguments import known_arguments
from sbi_models.errors import ConfigurationError, SbiModelsError
from sbi_models.progress import Advance, progress_bar
from sbi_models.simulators.arguments import (
    Function,
    Part,
    as_function,
    as_processes,
    as_shape,
    fixed_array,
    flattened,
)
from sbi_models.simulators.background import Background, may_start_one
from sbi_models.simulators.blocks import Block
from sbi_models.simulators.calls import NamedCall
from sbi_models.simulators.collection import Collection, computed_blocks
from sbi_models.simulators.failures import FailurePolicy, FailureReport
from sbi_models.simulators.fixed_values import FixedValue
from sbi_models.simulators.process_settings import settings_kept
from sbi_models.simulators.randomness import Randomness, fresh_seed_of
from sbi_models.simulators.repeatability import Repeatability
from sbi_models.simulators.table import Table
from sbi_models.types import Variables

if TYPE_CHECKING:
    from torch.distributions import Distribution

    from sbi_models.simulators.isolation import Isolation

_logger = logging.getLogger(__name__)
_ROWS_BEFORE_PROGRESS = 20_000
_BLOCK, _BLOCK_OF_A_CONTEXT = 256, 16


@known_arguments
class Simulator:
    """Functions called one after the other, each with the outputs of the earlier ones by name.

    Row i of the table that a seed defines is a function of the seed and i alone: `sample(100, seed=1)` starts
    with the rows of `sample(10, seed=1)`, and any worker can compute any rows. Unbatched functions get a
    stream of random numbers per row; batched ones are called on aligned blocks of `block_size` rows with a
    stream per block.

    Args:
        functions: functions, `functools.partial` objects or callable objects, in order. Each returns a dict
            of names to arrays. An argument named `rng` receives a `numpy.random.Generator`. Functions may
            also draw from the global states of NumPy, `random` and PyTorch, and from generators that they
            hold (globals of their modules, attributes of objects, closures): all are set by seed and row, and
            put back afterwards. Batched functions may take `batch_shape` (a tuple) or `batch_size` (an int).
            In place of a function, a dict of names to torch distributions stands for a prior, drawn in
            float64.
        meta_fn: draws the context, such as the number of observations or a design: called before the other
            functions, whose arguments its outputs are, once for each row, or, for batched functions, once for
            each block, all rows of which share the context.
        is_batched: True if each function simulates many rows in one call, with a leading batch axis in and
            out.
        block_size: rows in one call of the batched functions; by default 256, and 16 with `meta_fn`, so that
            a thousand rows have 63 contexts.
        failures: what happens when functions raise; by default no simulation may fail. An exception in a
            batched function is that of its whole block, all of whose rows then count as failed.

    Attributes:
        made_at: time of construction in seconds since 1970; later edits of the code have no effect.
        last_report: the failures of the last call of `sample` or `rows`; if there were some, they are logged
            as a warning, too.

    Raises:
        ConfigurationError: for something that is not callable, or no function at all.

    >>> def prior(rng): return {"theta": rng.normal(size=2)}
    >>> def likelihood(theta, rng): return {"x": rng.normal(theta, 1.0)}
    >>> simulator = Simulator([prior, likelihood])
    >>> few, more = simulator.sample(2, seed=1), simulator.sample(100, seed=1)
    >>> bool((few["x"] == more["x"][:2]).all())
    True
    """

    _stays_here = False
    _isolation: "Isolation | None" = None

    def __init__(
        self,
        functions: Sequence[Part],
        *,
        meta_fn: Function | None = None,
        is_batched: bool = False,
        block_size: int | None = None,
        failures: FailurePolicy | None = None,
    ) -> None:
        if not functions:
            raise ConfigurationError(
                "Expected at least one function, got none. Pass for instance "
                "make_simulator([prior, likelihood])."
            )
        if block_size is None:
            block_size = _BLOCK if meta_fn is None else _BLOCK_OF_A_CONTEXT
        if block_size < 1:
            raise ConfigurationError(f"Expected block_size of at least 1, got {block_size}.")
        self.calls = tuple(NamedCall(as_function(part)) for part in functions)
        self.meta = None if meta_fn is None else NamedCall(meta_fn)
        self.is_batched = is_batched
        self.block_size = block_size if is_batched else 1
        self.failures = FailurePolicy() if failures is None else failures
        self.last_report = FailureReport()
        self.made_at = time.time()
        self._repeatability = Repeatability()

    @property
    def priors(self) -> dict[str, "Distribution"]:
        """The torch distributions among the functions, by the name of the variable."""
        return {
            name: prior
            for call in self.calls
            for name, prior in getattr(call.function, "distributions", {}).items()
        }

    def first(self, number: int) -> "Simulator":
        """Simulator of the first `number` functions, such as a prior without its likelihood.

        Its draws come from another stream than those of the whole simulator.
        """
        functions = [call.function for call in self.calls[:number]]
        return Simulator(
            functions, is_batched=self.is_batched, block_size=self.block_size, failures=self.failures
        )

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the outputs of `meta_fn`, which is called once for that; none without it."""
        if self.meta is None:
            return ()
        with self._states_kept():
            return self._table(0, 0, 1).context_names()

    @property
    def log_joint(self) -> Callable[..., Any] | None:
        """`log_joint(theta, x)` of the object whose methods all functions are, in nats, or None.

        It is log p(theta, x), for importance weights.
        """
        owners = {
            id(owner): owner for owner in (getattr(call.function, "__self__", None) for call in self.calls)
        }
        density = getattr(next(iter(owners.values())), "log_joint", None) if len(owners) == 1 else None
        return density if callable(density) else None

    def sample(
        self,
        batch_shape: int | tuple[int, ...],
        *,
        seed: int | None = None,
        progress: bool | None = None,
        workers: int | None = None,
        **fixed: Any,
    ) -> Variables:
        """Draw simulations.

        Args:
            batch_shape: number of simulations as an int, or the leading axes as a tuple.
            seed: None takes one from the first generator that the functions hold, or without one from NumPy's
                global state, so that whoever seeds that governs such calls. Its first row is drawn twice when
                a simulator is first used: if it differs, draws do not repeat, which is a `TrustWarning`, and
                with workers an error.
            progress: show a progress bar; None shows one for more than 20 000 simulations, and with workers.
            workers: processes that simulate, for slow functions: an integer, -1 for one a core, None for no
                other process. The draws are the same to the bit, as far as the functions give the same on one
                thread, which is what a worker has for linear algebra. Functions may be closures; those of
                importable modules are imported anew, without changes made to their modules since.
            fixed: values that replace outputs of that name before later functions see them: one for all, of
                the shape of one output, or one a simulation, with the batch axes in front.

        Returns:
            Name to array of shape `batch_shape + shape of one output`, raw space. Scalars get a trailing axis
            of length 1.

        Raises:
            SimulationError: if more simulations fail than `failures` allows, chained to what the function
                raised; if outputs cannot be used; if a worker dies.
            ConfigurationError: if arguments do not fit, or a function cannot be sent to workers.
        """
        shape = as_shape(batch_shape)
        n = prod(shape)
        flat = {key: flattened(fixed_array(key, value), shape) for key, value in fixed.items()}
        rows = self.rows(
            0,
            n,
            seed=self._fresh_seed() if seed is None else seed,
            progress=progress,
            workers=workers,
            **flat,
        )
        return {key: value.reshape(*shape, *value.shape[1:]) for key, value in rows.items()}

    def rows(
        self,
        start: int,
        stop: int,
        *,
        seed: int,
        progress: bool | None = None,
        workers: int | None = None,
        **fixed: Any,
    ) -> Variables:
        """Rows `start` to `stop` (exclusive) of the table of `seed`: arrays (stop - start, ...), raw space.

        See `sample` for the other arguments.
        """
        processes, num_rows = as_processes(workers), stop - start
        show = (
            None
            if progress or (progress is None and (num_rows > _ROWS_BEFORE_PROGRESS or processes != 1))
            else False
        )
        self._repeatability.refuse_elsewhere(processes)
        with progress_bar("simulate", num_rows, show=show) as advance, self._states_kept():
            table = self._table(seed, start, stop, fixed)
            twice, uses_globals = self._repeatability.repeats is None, self._uses_global_state
            with closing(computed_blocks(table, processes, twice=twice)) as computed:
                here = processes == 1
                blocks = self._repeatability.checked(table, computed, uses_globals) if here else computed
                rows = self._collected(table, blocks, advance)
            if table.found_more():  # once in the life of a simulator
                rows = self._collected(table, map(table.block, table.indices))
        if processes != 1:
            self._repeatability.repeats = True
        return rows

    def stream(
        self, ranges: Sequence[tuple[int, int]], *, seed: int, workers: int | None = None
    ) -> Generator[Variables, None, None]:
        """Iterate over ranges of rows of the table of `seed`; later ranges are computed ahead.

        Rows are those of `rows` to the bit.

        This process computes until others are ready, and they compute once they have shown that they give the
        same to the bit. If they cannot be used, for instance since functions cannot be sent to them, it
        computes everything itself and logs a warning. A subclass with `rows` of its own computes with these,
        a range at a time.

        Args:
            ranges: (start, stop) of each item.
            seed: seed of the table.
            workers: processes that simulate ahead: an integer or -1, as for `sample`; 1 for none, each range
                then being computed when it is asked for; None for one if there is enough left to do, which is
                not started otherwise.

        Raises:
            SimulationError: where the range would have come, as from `rows`; also if a worker dies.
        """
        processes = as_processes(workers)
        if (
            not self._rows_are_plain
            or processes == 1 == workers
            or self._stays_here
            or (workers is None and not may_start_one())
        ):
            elsewhere = {} if self._rows_are_plain or processes == 1 else {"workers": workers}
            for start, stop in ranges:
                yield self.rows(start, stop, seed=seed, progress=False, **elsewhere)
            return
        self._repeatability.refuse_elsewhere(processes if workers is not None else 1)
        ahead = Background(
            partial(self._table, seed),
            ranges,
            processes,
            only_if_worthwhile=workers is None,
            give_up=self._stay_here,
        )
        with closing(ahead.chunks()) as chunks:
            for _ in ranges:
                with self._states_kept():
                    table, blocks = next(chunks)
                    checked = self._repeatability.checked(table, blocks, self._uses_global_state, ahead)
                    rows = self._collected(table, checked)
                    if table.found_more():  # once in the life of a simulator
                        rows = self._collected(table, map(table.block, table.indices))
                yield rows

    @property
    def suits_a_thread(self) -> bool:
        """True if `rows` may run in a thread beside other work without slowing that down.

        Batched functions spend their time in NumPy, which lets other threads run. Global states, and
        generators that functions hold, belong to all threads. The first block is computed, twice, to see
        whether anything but `rng` is drawn from.
        """
        if not (self.is_batched and self._rows_are_plain) or self._uses_global_state:
            return False
        if self._repeatability.rng_alone is None:
            try:
                self.rows(0, 1, seed=0, progress=False)
            except SbiModelsError:  # is raised again where it matters
                return False
        return bool(self._repeatability.rng_alone)

    def check_repeatable(self) -> None:
        """Raise SimulationError if row 0 of the table of seed 0 differs between two computations.

        The result is cached.
        """
        if self._repeatability.repeats is None:
            with self._states_kept():
                table = self._table(0, 0, 1)
                self._repeatability.compare(table, table.block(0), self._uses_global_state)
        self._repeatability.refuse_elsewhere()

    @property
    def _rows_are_plain(self) -> bool:
        """False if a subclass or an attribute overrides `rows`."""
        return getattr(self.rows, "__func__", None) is Simulator.rows

    def _stay_here(self, reason: str) -> None:
        self._stays_here = True
        _logger.warning("Simulations are computed in this process, not ahead in another one: %s", reason)

    def _fresh_seed(self) -> int:
        """Seed for a caller who gave none."""
        held = Randomness([call.function for call in self.calls], with_global_states=False).held
        return seeding.fresh_seed() if not held else fresh_seed_of(held[0])

    def _collected(
        self, table: Table, computed: Iterable[Block], advance: Advance = lambda *_: None
    ) -> Variables:
        """Rows of a table from its blocks in any order; raises SimulationError if too many failed."""
        collection = Collection(table)
        try:
            return collection.rows(computed, advance)
        finally:
            self.last_report = collection.report

    def _table(self, seed: int, start: int, stop: int, fixed: Mapping[str, Any] | None = None) -> Table:
        values = {
            key: FixedValue(key, fixed_array(key, value), start, stop) for key, value in (fixed or {}).items()
        }
        return Table(
            calls=self.calls,
            is_batched=self.is_batched,
            block_size=self.block_size,
            policy=self.failures,
            seed=seed,
            start=start,
            stop=stop,
            meta=self.meta,
            fixed=values,
            sets_global_states=not self._repeatability.rng_alone,
            isolation=self._isolated(),
        )

    def _isolated(self) -> "Isolation | None":
        """Child processes for functions with a time limit; None without a limit."""
        if self.failures.timeout is not None and self._isolation is None:
            from sbi_models.simulators.isolation import Isolation  # noqa: PLC0415 - imports joblib

            self._isolation = Isolation(self.failures.timeout)
        return self._isolation

    @property
    def _every_call(self) -> tuple[NamedCall, ...]:
        return self.calls if self.meta is None else (*self.calls, self.meta)

    @property
    def _uses_global_state(self) -> bool:
        """True if a function has no argument that it could draw random numbers from."""
        return not all(call.takes_rng for call in self._every_call)

    @contextmanager
    def _states_kept(self) -> Iterator[None]:
        """Context manager that restores held generators, global random states, and process settings."""
        # With `rng` alone it may run in a thread, beside others that change settings.
        alone = self._repeatability.rng_alone
        randomness = Randomness([call.function for call in self._every_call], with_global_states=not alone)
        with randomness.kept(), nullcontext() if alone else settings_kept():
            yield
