"""Step `simulate`: simulations for training, validation and test.

Shards that are missing on disk are computed on the engine of the experiment, all others are used as they are.
"""

from dataclasses import dataclass
from itertools import combinations
from time import monotonic, perf_counter
from typing import Any

import numpy as np
from prefect import task

from sbi_models import seeding
from sbi_models.datasets import SimulationStore, num_shared
from sbi_models.errors import DataError, SimulationError
from sbi_models.pipeline.cache import content_key, simulator_fingerprint
from sbi_models.pipeline.contexts import num_contexts
from sbi_models.pipeline.engines import ATTEMPTS, spread
from sbi_models.pipeline.experiment.question import Question
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.folders import forget, work_folder
from sbi_models.pipeline.outcomes import Simulations
from sbi_models.pipeline.steps.task import done, step
from sbi_models.ragged import fine_rows, is_ragged, leaves, real_or_ragged
from sbi_models.simulators import Simulator
from sbi_models.types import Array, Variables

_SECONDS_OF_A_CHECK, _ROWS_OF_A_CHECK = 0.25, 256
"""For how long, and how many at most, simulations of a store are computed again before it is used again."""

PURPOSES = ("training", "validation", "test")


@dataclass(frozen=True)
class StoreOrigin:
    """Folder, seed and key of the simulations for a purpose."""

    purpose: str
    folder: str
    seed: int
    fingerprint: str

    @property
    def origin(self) -> dict[str, Any]:
        """What a store checks its shards by."""
        return {"seed": self.seed, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class Shard:
    """Rows of the table of simulations of a seed that are one file of a store."""

    store: StoreOrigin
    start: int
    stop: int


# ---- keys --------------------------------------------------------------------


def store_key(question: Question) -> str:
    """Key of the folder with an experiment's simulations, of which there can always be more."""
    experiment = question.experiment
    contexts = None if question.study.simulator.meta is None else "one for each block"
    return content_key("simulate", __name__, simulator_fingerprint(question), experiment.seed, contexts)


def simulate_key(question: Question) -> str:
    """Key of the step: of its folder, and how many simulations there are for each purpose."""
    settings = question.experiment.simulate.model_dump(exclude={"rows_per_shard"})
    return content_key("simulate", __name__, store_key(question), settings)


# ---- tasks -------------------------------------------------------------------


@task(name="simulate shard")
def simulate_shard(question: Question, shard: Shard) -> None:
    """Simulate the rows of a shard, and write its file."""
    store, simulator = shard.store, question.study.simulator
    rows = simulator.rows(shard.start, shard.stop, seed=store.seed, progress=False)
    refuse_not_finite(question.experiment, simulator, rows, shard.start, store.seed)
    SimulationStore.write(store.folder, shard.start, shard.stop, rows, **store.origin)


@step("simulate", Simulations, lambda given: simulate_key(given["question"]))
def simulate(question: Question, stores: list[StoreOrigin], seconds: float = 0.0) -> Simulations:
    """Shards on disk as stores for training, validation and test; each has a stream of its own.

    Args:
        question: experiment and study.
        stores: store of each purpose.
        seconds: seconds that the shards took.
    """
    started, settings = perf_counter() - seconds, question.experiment.simulate
    finished = {
        store.purpose: SimulationStore.finish(
            store.folder,
            settings.of(store.purpose),
            rows_per_shard=settings.rows_per_shard,
            **store.origin,
        ).first(settings.of(store.purpose))
        for store in stores
    }
    simulations = Simulations(
        key=simulate_key(question),
        stores={store.purpose: store.folder for store in stores},
        content_hash={purpose: store.content_hash for purpose, store in finished.items()},
        num_simulations={purpose: store.num_simulations for purpose, store in finished.items()},
        num_contexts=_contexts(question.study.simulator, finished),
        **done(started),
    )
    _refuse_shared(simulations)
    return simulations


def _contexts(simulator: Simulator, stores: dict[str, SimulationStore]) -> dict[str, int]:
    """Number of contexts of each store; empty for a simulator without `meta_fn`."""
    names = simulator.context_names
    return {purpose: num_contexts(store, names) for purpose, store in stores.items()} if names else {}


def simulations_of(question: Question, *, fresh: bool = False) -> tuple[Simulations, bool]:
    """The simulations of a question, and whether all were there; what is missing or damaged is computed.

    Raises:
        DataError: if what is there is not what the simulator gives now, or simulations are there twice.
    """
    started = perf_counter()
    if fresh:
        forget(store_key(question))
    refuse_stale(question)
    computed = simulate_missing(question)
    seconds = perf_counter() - started if computed else 0.0
    simulations, _ = simulate.reuse(question, stores_of(question), seconds, fresh=fresh)
    again = {"seconds": perf_counter() - started} if computed else {}
    return simulations.model_copy(update={"made": computed, **again}), computed == 0


# ---- bodies ------------------------------------------------------------------


def stores_of(question: Question) -> list[StoreOrigin]:
    """The store of each purpose, shared by experiments that differ in numbers of simulations only."""
    key, seed = store_key(question), question.experiment.seed
    return [
        StoreOrigin(
            purpose,
            str(work_folder() / key / purpose),
            seeding.derive(seed, "simulations", purpose),
            key,
        )
        for purpose in PURPOSES
    ]


def missing_shards(question: Question) -> list[Shard]:
    """Shards that are not on disk whole."""
    settings, shards = question.experiment.simulate, []
    for store in stores_of(question):
        SimulationStore.check(store.folder, **store.origin)
        ranges = SimulationStore.missing(
            store.folder, settings.of(store.purpose), rows_per_shard=settings.rows_per_shard, **store.origin
        )
        shards += [Shard(store, start, stop) for start, stop in ranges]
    return shards


def simulate_missing(question: Question) -> int:
    """Compute what is missing; the number of simulations that were.

    Raises:
        SimulationError: if a simulation fails, draws do not repeat, or workers die again and again.
    """
    computed, in_vain = 0, 0
    engine, simulator = question.experiment.engine, question.study.simulator
    if engine.kind == "threads" and not simulator.suits_a_thread:
        engine = engine.model_copy(
            update={"workers": 1}
        )  # random numbers of NumPy's global state belong to all threads
    shards = missing_shards(question)
    if shards:
        simulator.check_repeatable()
    while shards:
        weights = [shard.stop - shard.start for shard in shards]
        calls = [{"question": question, "shard": shard} for shard in shards]
        lost = spread(simulate_shard, calls, engine, "simulate", weights, folder=work_folder())
        left = missing_shards(question)
        if len(left) > lost:
            raise DataError(
                f"Expected {len(shards)} more files of simulations in {work_folder()}, got "
                f"{len(shards) - len(left)}, though the engine {engine.kind} says that they are written: do "
                "its workers share this folder? Mount it on their machines in the same place."
            )
        computed += sum(weights) - sum(shard.stop - shard.start for shard in left)
        in_vain = in_vain + 1 if len(left) == len(shards) else 0
        if in_vain == ATTEMPTS:
            raise SimulationError(
                f"Workers of the engine {engine.kind} died {ATTEMPTS} times while they simulated, and no "
                "shard was finished: a function crashed in compiled code, or memory ran out. Use fewer "
                "workers, or a smaller rows_per_shard. Finished shards are kept."
            )
        shards = left
    return computed


def more_tests(question: Question, num_simulations: int) -> Variables:
    """The first test simulations, raw space: name to (num_simulations, ...); missing ones are computed.

    They are on disk afterwards, so that nobody computes them again. The outcome of the step stays as it is.
    """
    experiment = question.experiment
    settings = experiment.simulate.model_copy(update={"test": max(num_simulations, experiment.simulate.test)})
    more = question.with_settings(experiment.model_copy(update={"simulate": settings}))
    simulate_missing(more)
    store = next(store for store in stores_of(more) if store.purpose == "test")
    return SimulationStore.finish(
        store.folder, num_simulations, rows_per_shard=settings.rows_per_shard, **store.origin
    ).load()


# ---- checks ------------------------------------------------------------------


def refuse_stale(question: Question) -> None:
    """Compute some of the simulations on disk once more, for a quarter of a second a store, and compare.

    Raises:
        DataError: if they are not the same, up to rounding: something has changed that neither code nor
            `depends_on` show.
    """
    simulator, seed = question.study.simulator, question.experiment.seed
    for origin in stores_of(question):
        try:
            store = SimulationStore.open(origin.folder)
        except DataError:  # nothing is there, or what is there is not used
            continue
        if not store.is_intact():  # damaged shards are made again
            continue
        size, until = simulator.block_size, monotonic() + _SECONDS_OF_A_CHECK
        blocks = -(-store.num_simulations // size)
        order = seeding.generator(seed, "rows to check", blocks).permutation(blocks)[
            : max(1, _ROWS_OF_A_CHECK // size)
        ]
        for start in map(int, order * size):
            stop = min(start + size, store.num_simulations)
            stored = store.rows(start, stop)
            sure = [value for name, value in stored.items() if name not in question.experiment.may_miss]
            if all(fine_rows(value, np.isfinite).all() for value in sure):  # what failed for good is NaN
                now = simulator.rows(start, stop, seed=origin.seed, progress=False)
                _compare(stored, now, origin.folder, start)
            if monotonic() > until:
                break


def _compare(stored: Variables, now: Variables, folder: str, row: int) -> None:
    for name, value in stored.items():
        sizes = (np.abs(np.nan_to_num(leaf.astype(np.float64))).max(initial=0.0) for leaf in leaves(value))
        scale = float(max(sizes, default=0.0))
        one, other = (real_or_ragged(rows.get(name, []), repr(name)) for rows in (now, stored))
        if not _is_close(one, other, atol=1e-8 * scale):
            raise DataError(
                f"Expected the simulations in {folder} to be those that the simulator gives now, got "
                f"another {name!r} in row {row} or those after it. Something has changed that its code does "
                "not show: name files and environment variables that it reads under depends_on, or "
                "simulate and train anew: sbi-models run --fresh."
            )


def _is_close(one: Array, other: Array, *, atol: float) -> bool:
    """Whether two variables have the same lengths, and numbers up to rounding."""
    if is_ragged(one) or is_ragged(other):
        same = one.dtype == other.dtype and one.shape == other.shape
        return same and all(_is_close(a, b, atol=atol) for a, b in zip(one, other, strict=True))
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=atol, equal_nan=True)


def refuse_not_finite(
    experiment: Experiment, simulator: Simulator, rows: Variables, start: int, seed: int
) -> None:
    """Raise SimulationError if rows of the table of a seed have inf, or NaN in what may not be missing.

    Args:
        experiment: settings, which name the variables that matter, and those that may be missing.
        simulator: simulator that made the rows.
        rows: variables (n, ...), raw space.
        start: number of the first row in the table.
        seed: seed of the table.
    """
    for name in (name for name in experiment.variables if name in rows):
        may_miss = name in experiment.may_miss
        bad = np.flatnonzero(~fine_rows(rows[name], _is_not_inf if may_miss else np.isfinite))
        if bad.size:
            row, total = start + int(bad[0]), len(rows[name])
            failed = ", which failed for good" if row in simulator.last_report.failed else ""
            raise SimulationError(
                f"Expected finite numbers in {name!r} of each simulation, got "
                f"{'inf' if may_miss else 'NaN or inf'} in {bad.size} of "
                f"{total}, such as row {row} of seed {seed}{failed}. See it again with "
                f"simulator.rows({row}, {row + 1}, seed={seed}). Mend the simulator, or have such "
                "simulations drawn again: make_simulator(..., failures=FailurePolicy(retries=3, "
                f"non_finite=True)).{_if_missing(experiment, name)}"
            )


def _is_not_inf(value: Array) -> Array:
    return np.asarray(~np.isinf(value))


def _if_missing(experiment: Experiment, name: str) -> str:
    """The cure for a condition that may be missing, and is not said to be."""
    if name in experiment.may_miss or name in experiment.inference_variables:
        return ""
    return f" If NaN stands for values that may be missing, say so: missing: {{{name}: {name}_there}}."


def _refuse_shared(simulations: Simulations) -> None:
    """Raise DataError if simulations for one purpose are those for another."""
    keys = {purpose: simulations.store(purpose).row_keys() for purpose in simulations.stores}
    for first, second in combinations(keys, 2):
        if shared := num_shared(keys[first], keys[second]):
            raise DataError(
                f"Expected {second} simulations that are not in {first}, got {shared} of "
                f"{len(keys[second])} that are. Generators of random numbers began anew: draw from the "
                "argument rng alone, and run with --fresh."
            )
