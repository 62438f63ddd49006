"""The tasks of the pipeline. Each is thin: paths and identifiers in, a small JSON manifest out, the work done by the library."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from prefect import task
from prefect.context import TaskRunContext

from flows.certificates import certify_observations
from flows.composition import compose_observations
from flows.diagnosis import diagnose_runs, verdict_tags
from flows.keys import file_sha256, simulate_key, train_key
from flows.members import RunWithMembers
from flows.parameters import Experiment, load_object
from flows.reporting import draws_frame, posterior_figure, posterior_table, reference_errors
from flows.runtime import project_root, work_folder
from flows.study import Study
from flows.training import train_workflow
from sbi_models import load, seeding
from sbi_models.approximators import CompositionalApproximator, load_approximator
from sbi_models.datasets import SimulationStore
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.tracking import Tracker, open_store, register

Manifest = dict[str, Any]

PURPOSES = ("training", "validation", "test")


def _study(experiment: Experiment) -> Study:
    study: Study = load_object(experiment.study)
    return study


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# ---- simulate --------------------------------------------------------------------------------------------------------------------------


def _simulate_cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    del context
    return simulate_key(parameters["experiment"])


@task(name="simulate", persist_result=True, result_serializer="json", cache_key_fn=_simulate_cache_key)
def simulate(experiment: Experiment) -> Manifest:
    """Training, validation and test simulations on disk, each from a stream of its own."""
    started, key = perf_counter(), simulate_key(experiment)
    simulator = _study(experiment).simulator
    manifest: Manifest = {"key": key, "stores": {}, "content_hash": {}, "num_simulations": {}}
    for purpose in PURPOSES:
        seed = seeding.derive(experiment.seed, "simulations", purpose)
        store = SimulationStore.create(
            work_folder() / key / purpose,
            partial(simulator.rows, seed=seed, progress=False),
            getattr(experiment.simulate, purpose),
            seed=seed,
            fingerprint=key,
            description=f"simulate {purpose}",
        )
        manifest["stores"][purpose] = str(store.folder)
        manifest["content_hash"][purpose] = store.content_hash
        manifest["num_simulations"][purpose] = store.num_simulations
    return manifest | {"seconds": perf_counter() - started, "finished": _now()}


def simulations_intact(manifest: Manifest) -> bool:
    """True if every store that a manifest names is there, to the bit."""
    for purpose, folder in manifest["stores"].items():
        try:
            store = SimulationStore.open(folder)
        except DataError:
            return False
        if store.content_hash != manifest["content_hash"][purpose] or not store.is_intact():
            return False
    return True


# ---- train -----------------------------------------------------------------------------------------------------------------------------


def _train_cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    del context
    return train_key(parameters["experiment"], parameters["simulations"]["content_hash"])


@task(name="train", persist_result=True, result_serializer="json", cache_key_fn=_train_cache_key)
def train(experiment: Experiment, simulations: Manifest, run_id: str) -> Manifest:
    """Train a BasicWorkflow, or a CompositionalWorkflow, on the stored simulations; a killed training goes on from its last epoch."""
    return _trained(experiment, simulations, run_id)


@task(name="ensemble", persist_result=True, result_serializer="json", cache_key_fn=_train_cache_key)
def ensemble(experiment: Experiment, simulations: Manifest, run_id: str) -> Manifest:
    """Train an EnsembleWorkflow in place of a BasicWorkflow, and learn the weights of its members on the validation simulations."""
    return _trained(experiment, simulations, run_id)


def _trained(experiment: Experiment, simulations: Manifest, run_id: str) -> Manifest:
    started, key = perf_counter(), train_key(experiment, simulations["content_hash"])
    run = RunWithMembers(Tracker.attach(open_store(project_root()), run_id), experiment)
    manifest = train_workflow(experiment, simulations, key, run.log_epoch)
    run.flush()
    return manifest | {"seconds": perf_counter() - started, "finished": _now()}


def training_intact(manifest: Manifest) -> bool:
    """True if the approximator that a manifest names is there, to the bit."""
    return Path(manifest["model"]).is_file() and file_sha256(manifest["model"]) == manifest["sha256"]


# ---- diagnose, register, infer, compose ------------------------------------------------------------------------------------------------


@task(name="diagnose")
def diagnose(experiment: Experiment, simulations: Manifest, training: Manifest, run_id: str) -> Manifest:
    """Figures, metrics and the verdict on the test simulations, of the approximator and of each member of an ensemble."""
    run = RunWithMembers(Tracker.attach(open_store(project_root()), run_id), experiment)
    test = SimulationStore.open(simulations["stores"]["test"]).load()
    return diagnose_runs(experiment, load_approximator(training["model"]), test, training["history"], run)


@task(name="register")
def register_model(experiment: Experiment, training: Manifest, diagnosis: Manifest, run_id: str) -> Manifest:
    """The approximator in the model registry, with its verdict as tags; the same file is registered once."""
    settings = experiment.register_as
    tags = verdict_tags(diagnosis["verdict"])
    registered = register(open_store(project_root()), settings.name, training["model"], run_id, aliases=[settings.alias], tags=tags)
    return {"uri": registered.uri, "name": registered.name, "version": registered.version, "reused": registered.reused}


@task(name="infer")
def infer(experiment: Experiment, registered: Manifest, run_id: str) -> Manifest:
    """Posterior draws for the real observations, from the registered model, with certificates, and the exact one where it is known."""
    study = _study(experiment)
    labels, observations = study.observations()
    store = open_store(project_root())
    approximator = load(registered["uri"], certify=False)
    draws = approximator.sample(
        num_samples=experiment.infer.num_samples, conditions=observations, seed=seeding.derive(experiment.seed, "infer")
    )
    values = study.evaluate(draws)
    references = study.references(observations)
    table = posterior_table(study, labels, values, references)
    tracker = Tracker.attach(store, run_id)
    folder = work_folder() / "inference" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    draws_file = folder / "draws.parquet"
    draws_frame(labels, draws, study.parameter_names).to_parquet(draws_file, index=False)
    tracker.log_file(draws_file, "inference")
    tracker.log_table(table, "inference/posteriors.csv")
    if references is not None:
        tracker.log_figures({"posteriors": posterior_figure(study, labels, values, references)})
    tracker.log_metrics(reference_errors(table))
    return {
        "data_set_name": study.data_set_name,
        "table": table.to_dict(orient="records"),
        "draws_sha256": file_sha256(draws_file),
        "certificates": certify_observations(experiment, approximator, labels, observations, tracker),
    }


@task(name="compose")
def compose(experiment: Experiment, registered: Manifest, run_id: str) -> Manifest:
    """Draws from the one posterior given all real observations together, from the registered model, with the exact one beside them."""
    started = perf_counter()
    approximator = load(registered["uri"], certify=False)
    if not isinstance(approximator, CompositionalApproximator):
        raise ConfigurationError(f"Expected a model that composes, got {registered['uri']} of kind {approximator.kind!r}. Train it anew.")
    tracker = Tracker.attach(open_store(project_root()), run_id)
    manifest = compose_observations(experiment, approximator, tracker)
    tracker.log_metrics({"compose.seconds": perf_counter() - started})
    return manifest
