"""The simulations of an experiment: shards that are missing on disk are computed on its engine, all others
are used as they are."""

from time import monotonic
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.datasets import SimulationStore
from sbi_models.errors import DataError, SimulationError
from sbi_models.pipeline import tasks
from sbi_models.pipeline.cache import store_key
from sbi_models.pipeline.engines import ATTEMPTS, spread
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.runtime import work_folder
from sbi_models.types import Variables

_SECONDS_OF_A_CHECK, _ROWS_OF_A_CHECK = 0.25, 256
"""For how long, and how many at most, simulations of a store are computed again before it is used again."""

PURPOSES = ("training", "validation", "test")


def stores_of(experiment: Experiment) -> list[dict[str, Any]]:
    """Purpose, folder, seed and fingerprint of each store; experiments that differ only in how many they want
    share them."""
    key = store_key(experiment)
    return [
        {
            "purpose": purpose,
            "folder": str(work_folder() / key / purpose),
            "seed": seeding.derive(experiment.seed, "simulations", purpose),
            "fingerprint": key,
        }
        for purpose in PURPOSES
    ]


def missing_shards(experiment: Experiment) -> list[dict[str, Any]]:
    """What `tasks.simulate_shard` has still to be called with: rows that are not on disk whole."""
    cut = experiment.simulate.rows_per_shard
    calls = []
    for store in stores_of(experiment):
        SimulationStore.check(store["folder"], seed=store["seed"], fingerprint=store["fingerprint"])
        wanted, origin = (
            experiment.simulate.of(store["purpose"]),
            {"seed": store["seed"], "fingerprint": store["fingerprint"]},
        )
        ranges = SimulationStore.missing(store["folder"], wanted, rows_per_shard=cut, **origin)
        calls += [
            {"experiment": experiment, "store": store, "start": start, "stop": stop} for start, stop in ranges
        ]
    return calls


def refuse_stale(experiment: Experiment) -> None:
    """Compute some of the simulations that are on disk once more, for a quarter of a second a store, and
    compare.

    Raises:
        DataError: if they are not the same, up to rounding: something has changed that neither code nor
            `depends_on` show.
    """
    simulator = study_of(experiment).simulator
    if simulator.meta is not None:  # its rows depend on where their batch began
        return
    for given in stores_of(experiment):
        try:
            store = SimulationStore.open(given["folder"])
        except DataError:  # nothing is there, or what is there is not used
            continue
        if not store.is_intact():  # damaged shards are made again
            continue
        size, until = simulator.block_size, monotonic() + _SECONDS_OF_A_CHECK
        blocks = -(-store.num_simulations // size)
        order = seeding.generator(experiment.seed, "rows to check", blocks).permutation(blocks)[
            : max(1, _ROWS_OF_A_CHECK // size)
        ]
        for start in order * size:
            stop = min(int(start) + size, store.num_simulations)
            kept = store.rows(int(start), stop)
            if all(np.isfinite(value).all() for value in kept.values()):  # what failed for good is NaN
                _compare(
                    kept,
                    simulator.rows(int(start), stop, seed=given["seed"], progress=False),
                    given["folder"],
                    int(start),
                )
            if monotonic() > until:
                break


def _compare(kept: Variables, now: Variables, folder: str, row: int) -> None:
    for name, value in kept.items():
        new = now.get(name)
        scale = float(np.abs(value.astype(np.float64)).max(initial=0.0))
        if (
            new is None
            or new.shape != value.shape
            or not np.allclose(new, value, rtol=1e-5, atol=1e-8 * scale)
        ):
            raise DataError(
                f"Expected the simulations in {folder} to be those that the simulator gives now, got "
                f"another {name!r} in row {row} or those after it. Something has changed that its code does "
                "not show: name files and environment variables that it reads under depends_on, or "
                "simulate and train anew: sbi-models run --fresh."
            )


def simulate_missing(experiment: Experiment) -> int:
    """Compute what is missing; the number of simulations that were.

    Raises:
        SimulationError: if a simulation fails, draws do not repeat, or workers die again and again.
    """
    made, in_vain = 0, 0
    engine = experiment.engine
    if engine.kind == "threads" and not study_of(experiment).simulator.suits_a_thread:
        engine = engine.model_copy(
            update={"workers": 1}
        )  # random numbers of NumPy's global state belong to all threads
    calls = missing_shards(experiment)
    if calls:
        study_of(experiment).simulator.check_repeatable()
    while calls:
        weights = [call["stop"] - call["start"] for call in calls]
        lost = spread(tasks.simulate_shard, calls, engine, "simulate", weights, folder=work_folder())
        left = missing_shards(experiment)
        if len(left) > lost:
            raise DataError(
                f"Expected {len(calls)} more files of simulations in {work_folder()}, got "
                f"{len(calls) - len(left)}, though the engine {engine.kind} says that they are written: do "
                "its workers share this folder? Mount it on their machines in the same place."
            )
        made += sum(weights) - sum(call["stop"] - call["start"] for call in left)
        in_vain = in_vain + 1 if len(left) == len(calls) else 0
        if in_vain == ATTEMPTS:
            raise SimulationError(
                f"Workers of the engine {engine.kind} died {ATTEMPTS} times while they simulated, and no "
                "shard was finished: a function crashed in compiled code, or memory ran out. Use fewer "
                "workers, or a smaller rows_per_shard. Finished shards are kept."
            )
        calls = left
    return made


def more_tests(experiment: Experiment, num_simulations: int) -> Variables:
    """The first simulations of the stream of test simulations, raw space: name to (num_simulations, ...);
    what is missing is computed.

    They are on disk afterwards, so that nobody computes them again. The manifest of the test simulations
    stays as it is.
    """
    simulate = experiment.simulate.model_copy(update={"test": max(num_simulations, experiment.simulate.test)})
    more = experiment.model_copy(update={"simulate": simulate})
    simulate_missing(more)
    given = next(store for store in stores_of(more) if store["purpose"] == "test")
    origin = {"seed": given["seed"], "fingerprint": given["fingerprint"]}
    return SimulationStore.finish(
        given["folder"], num_simulations, rows_per_shard=simulate.rows_per_shard, **origin
    ).load()
