"""The tasks of the pipeline. Each is thin: paths and identifiers in, a small JSON manifest out, the work done
by the library."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

from prefect import task
from prefect.context import TaskRunContext

from sbi_models import load
from sbi_models.approximators import CompositionalApproximator, load_approximator
from sbi_models.datasets import SimulationStore, num_shared
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.pipeline import outcomes as results
from sbi_models.pipeline.cache import (
    compose_key,
    diagnose_key,
    file_sha256,
    infer_key,
    narrow_key,
    simulate_key,
    train_key,
)
from sbi_models.pipeline.data_checks import refuse_not_finite
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.json_results import only_plain_json
from sbi_models.pipeline.member_runs import RunWithMembers
from sbi_models.pipeline.outcomes import Results
from sbi_models.pipeline.runtime import project_root, work_folder, work_for
from sbi_models.pipeline.steps.compose import compose_observations
from sbi_models.pipeline.steps.diagnose import diagnose_all, verdict_tags
from sbi_models.pipeline.steps.infer import infer_observations
from sbi_models.pipeline.steps.sequential import narrow_prior
from sbi_models.pipeline.steps.train import part_path, train_part, train_workflow
from sbi_models.tracking import Tracker, file_lock, open_store, register
from sbi_models.types import Variables

Manifest = dict[str, Any]


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _done(started: float) -> Manifest:
    return {"seconds": perf_counter() - started, "finished": _now()}


def _keyed(key: Callable[[dict[str, Any]], str]) -> Callable[[TaskRunContext, dict[str, Any]], str]:
    """A cache key of Prefect from the arguments of a task alone; a result under it that is no plain JSON is
    removed before it is read."""
    return lambda context, arguments: only_plain_json(key(arguments))


# ---- simulate --------------------------------------------------------------


@task(name="simulate shard")
def simulate_shard(experiment: Experiment, store: Manifest, start: int, stop: int) -> None:
    """Rows of the table of simulations of a seed as one file of a store, of which folder, seed and
    fingerprint are given."""
    simulator = study_of(experiment).simulator
    rows = simulator.rows(start, stop, seed=store["seed"], progress=False)
    refuse_not_finite(experiment, simulator, rows, start, store["seed"])
    SimulationStore.write(
        store["folder"], start, stop, rows, seed=store["seed"], fingerprint=store["fingerprint"]
    )


@task(
    name="simulate",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=_keyed(lambda given: simulate_key(given["experiment"])),
)
def simulate(experiment: Experiment, stores: list[Manifest], seconds: float = 0.0) -> Manifest:
    """Training, validation and test simulations, whose shards are on disk, as stores; each has a stream of
    its own.

    Args:
        experiment: whose simulations they are.
        stores: purpose, folder, seed and fingerprint of each.
        seconds: seconds that the shards took.
    """
    started = perf_counter() - seconds
    manifest: Manifest = {
        "key": simulate_key(experiment),
        "stores": {},
        "content_hash": {},
        "num_simulations": {},
    }
    for given in stores:
        purpose, wanted = given["purpose"], experiment.simulate.of(given["purpose"])
        store = SimulationStore.finish(
            given["folder"],
            wanted,
            seed=given["seed"],
            fingerprint=given["fingerprint"],
            rows_per_shard=experiment.simulate.rows_per_shard,
        ).first(wanted)
        manifest["stores"][purpose] = given["folder"]
        manifest["content_hash"][purpose] = store.content_hash
        manifest["num_simulations"][purpose] = store.num_simulations
    _refuse_shared(manifest)
    return manifest | _done(started)


def _refuse_shared(manifest: Manifest) -> None:
    """Raise DataError if simulations of one purpose are those of another."""
    keys = {purpose: simulations(manifest, purpose).row_keys() for purpose in manifest["stores"]}
    for first, second in combinations(keys, 2):
        if shared := num_shared(keys[first], keys[second]):
            raise DataError(
                f"Expected {second} simulations that are not in {first}, got {shared} of "
                f"{len(keys[second])} that are. Generators of random numbers began anew: draw from the "
                "argument rng alone, and run with --fresh."
            )


def simulations(manifest: Manifest, purpose: str) -> SimulationStore:
    """The simulations for a purpose that a manifest names; there may be more of them by now."""
    return SimulationStore.open(manifest["stores"][purpose]).first(manifest["num_simulations"][purpose])


def simulations_intact(manifest: Manifest) -> bool:
    """True if every store that a manifest names is there, to the bit."""
    for purpose, content_hash in manifest["content_hash"].items():
        try:
            store = simulations(manifest, purpose)
        except DataError:
            return False
        if not store.is_intact() or store.content_hash != content_hash:
            return False
    return True


# ---- train -----------------------------------------------------------------


def _train_key(arguments: dict[str, Any]) -> str:
    return train_key(arguments["experiment"], arguments["simulations"]["content_hash"])


@task(name="train", persist_result=True, result_serializer="json", cache_key_fn=_keyed(_train_key))
def train(experiment: Experiment, simulations: Manifest, run_id: str, seconds: float = 0.0) -> Manifest:
    """Train a BasicWorkflow, or a CompositionalWorkflow, on the stored simulations; a killed training goes on
    from its last epoch."""
    return _trained(experiment, simulations, run_id, seconds)


@task(name="ensemble", persist_result=True, result_serializer="json", cache_key_fn=_keyed(_train_key))
def ensemble(experiment: Experiment, simulations: Manifest, run_id: str, seconds: float = 0.0) -> Manifest:
    """Train an EnsembleWorkflow in place of a BasicWorkflow, and learn the weights of its members on the
    validation simulations.

    Members that were trained apart have taken some seconds already.
    """
    return _trained(experiment, simulations, run_id, seconds)


@task(name="train member")
def train_member(experiment: Experiment, simulations: Manifest, run_id: str, member: str, root: str) -> None:
    """Train one member of an ensemble, in whatever process this is, for the task `ensemble` to put it beside
    the others."""
    work_for(root)
    key = train_key(experiment, simulations["content_hash"])
    run = RunWithMembers(Tracker.attach(open_store(project_root()), run_id), experiment)
    with file_lock(work_folder() / f"{key}.{member}.lock"):
        if not part_path(key, member).is_file():
            train_part(
                experiment, _training_data(simulations), key, member, partial(run.log_epoch_of, member)
            )
    run.flush()


def _training_data(manifest: Manifest) -> dict[str, Variables]:
    return {purpose: simulations(manifest, purpose).load() for purpose in ("training", "validation")}


def _trained(experiment: Experiment, manifest: Manifest, run_id: str, seconds: float) -> Manifest:
    started, key = perf_counter() - seconds, train_key(experiment, manifest["content_hash"])
    run = RunWithMembers(Tracker.attach(open_store(project_root()), run_id), experiment)
    data = _training_data(manifest)
    with file_lock(
        work_folder() / f"{key}.lock"
    ):  # another pipeline with the same training waits, and then uses its states
        trained = train_workflow(experiment, data, key, run.log_epoch)
    run.flush()
    return trained | _done(started)


def training_intact(manifest: Manifest) -> bool:
    """True if the approximator that a manifest names is there, to the bit."""
    return Path(manifest["model"]).is_file() and file_sha256(manifest["model"]) == manifest["sha256"]


# ---- narrow ----------------------------------------------------------------


def _narrow_key(arguments: dict[str, Any]) -> str:
    return narrow_key(arguments["experiment"], arguments["training"]["sha256"])


@task(name="narrow", persist_result=True, result_serializer="json", cache_key_fn=_keyed(_narrow_key))
def narrow(experiment: Experiment, training: Manifest) -> Manifest:
    """The prior of the next round of simulations, around the posterior of the real observation by the round
    before."""
    started, approximator = perf_counter(), load_approximator(training["model"])
    return {"prior": narrow_prior(experiment, approximator)} | _done(started)


# ---- diagnose, register, infer, compose ------------------------------------


def _diagnose_key(arguments: dict[str, Any]) -> str:
    return diagnose_key(
        arguments["experiment"], arguments["simulations"]["content_hash"], arguments["training"]
    )


@task(name="diagnose", persist_result=True, result_serializer="json", cache_key_fn=_keyed(_diagnose_key))
def diagnose(experiment: Experiment, simulations: Manifest, training: Manifest) -> Manifest:
    """Figures, metrics and the verdict on the test simulations, of the approximator and of each member of an
    ensemble."""
    started, test = perf_counter(), simulations_for_tests(simulations)
    folder = work_folder() / diagnose_key(experiment, simulations["content_hash"], training)
    diagnosis = diagnose_all(
        experiment, load_approximator(training["model"]), test, training["history"], folder
    )
    return diagnosis | _done(started)


def simulations_for_tests(manifest: Manifest) -> Variables:
    """The test simulations that a manifest names, raw space."""
    return simulations(manifest, "test").load()


@task(name="register")
def register_model(experiment: Experiment, training: Manifest, diagnosis: Manifest, run_id: str) -> Manifest:
    """The approximator in the model registry as challenger, with its verdict as tags; the same file is
    registered once."""
    store, name = open_store(project_root()), experiment.register_as.name
    notes: dict[str, Any] = {"tags": verdict_tags(diagnosis["verdict"]), "metrics": diagnosis["metrics"]}
    registered = register(store, name, training["model"], run_id, aliases=("challenger",), **notes)
    return {
        "uri": registered.uri,
        "name": registered.name,
        "version": registered.version,
        "reused": registered.reused,
    }


def _infer_key(arguments: dict[str, Any]) -> str:
    return infer_key(arguments["experiment"], arguments["training"]["sha256"])


@task(name="infer", persist_result=True, result_serializer="json", cache_key_fn=_keyed(_infer_key))
def infer(experiment: Experiment, training: Manifest, registered: Manifest) -> Manifest:
    """Posterior draws for the real observations, from the registered model, with certificates, and the exact
    one where it is known."""
    started, approximator = perf_counter(), load(registered["uri"], open_store(project_root()), certify=False)
    folder = work_folder() / infer_key(experiment, training["sha256"])
    return infer_observations(experiment, approximator, Results(folder)) | _done(started)


def _compose_key(arguments: dict[str, Any]) -> str:
    return compose_key(arguments["experiment"], arguments["training"]["sha256"])


@task(name="compose", persist_result=True, result_serializer="json", cache_key_fn=_keyed(_compose_key))
def compose(experiment: Experiment, training: Manifest, registered: Manifest) -> Manifest:
    """Draws from the one posterior given all real observations together, from the registered model, with the
    exact one beside them."""
    started, approximator = perf_counter(), load(registered["uri"], open_store(project_root()), certify=False)
    if not isinstance(approximator, CompositionalApproximator):
        raise ConfigurationError(
            f"Expected a model that composes, got {registered['uri']} of kind "
            f"{approximator.kind!r}. Train it anew."
        )
    folder = work_folder() / compose_key(experiment, training["sha256"])
    return compose_observations(experiment, approximator, Results(folder)) | _done(started)


outcome_intact = results.intact
