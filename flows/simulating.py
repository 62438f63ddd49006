"""The simulations of an experiment: shards that are missing on disk are computed on its engine, all others are used as they are."""

from typing import Any

from flows import tasks
from flows.engines import ATTEMPTS, spread
from flows.keys import store_key
from flows.parameters import Experiment
from flows.runtime import work_folder
from flows.studies import study_of
from sbi_models import seeding
from sbi_models.datasets import SimulationStore
from sbi_models.errors import SimulationError

PURPOSES = ("training", "validation", "test")


def stores_of(experiment: Experiment) -> list[dict[str, Any]]:
    """Purpose, folder, seed and fingerprint of each store; experiments that differ only in how many they want share them."""
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
        wanted, origin = experiment.simulate.of(store["purpose"]), {"seed": store["seed"], "fingerprint": store["fingerprint"]}
        ranges = SimulationStore.missing(store["folder"], wanted, rows_per_shard=cut, **origin)
        calls += [{"experiment": experiment, "store": store, "start": start, "stop": stop} for start, stop in ranges]
    return calls


def simulate_missing(experiment: Experiment) -> int:
    """Compute what is missing; the number of simulations that were.

    Raises:
        SimulationError: if a simulation fails, or workers die again and again.
    """
    made, in_vain = 0, 0
    engine = experiment.engine
    if engine.kind == "threads" and not study_of(experiment).simulator.suits_a_thread:
        engine = engine.model_copy(update={"workers": 1})  # random numbers of NumPy's global state belong to all threads
    while calls := missing_shards(experiment):
        weights = [call["stop"] - call["start"] for call in calls]
        lost = spread(tasks.simulate_shard, calls, engine, "simulate", weights)
        left = missing_shards(experiment) if lost else []
        made += sum(weights) - sum(call["stop"] - call["start"] for call in left)
        in_vain = in_vain + 1 if len(left) == len(calls) else 0
        if in_vain == ATTEMPTS:
            raise SimulationError(
                f"Workers of the engine {engine.kind} died {ATTEMPTS} times while they simulated, and no shard was finished: a function "
                "crashed in compiled code, or memory ran out. Use fewer workers, or a smaller rows_per_shard. Finished shards are kept."
            )
    return made
