"""The pipeline: simulate -> train or ensemble -> diagnose -> register -> infer -> compose, as one Prefect flow and one MLflow run."""

# ruff: noqa: E402 - Prefect looks for its folders when it is imported

from flows.runtime import end_on_sigterm, make_folders, project_root

make_folders()

from collections.abc import Callable
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.tasks import Task

from flows import tasks
from flows.certificates import in_short
from flows.keys import content_key, simulator_fingerprint
from flows.local_server import local_prefect
from flows.members import RunWithMembers
from flows.parameters import Experiment
from flows.screen import Screen
from flows.training import workflow_of
from sbi_models.datasets import SimulationStore
from sbi_models.errors import DataError
from sbi_models.tracking import Tracker, open_store

Manifest = dict[str, Any]

DESCRIPTION_TAG = "mlflow.note.content"


@flow(name="pipeline", persist_result=False)
def pipeline(experiment: Experiment) -> Manifest:
    """Run an experiment. Finished simulations and trainings are used again; everything is tracked in one MLflow run."""
    screen = Screen(experiment)
    with start_run(experiment) as tracker:
        run_id = tracker.run_id

        screen.stage("simulate")
        simulations, reused = reuse(tasks.simulate, tasks.simulations_intact, experiment)
        record_simulations(tracker, simulations, reused)
        screen.simulated(simulations, reused)

        train = tasks.train if experiment.ensemble is None else tasks.ensemble
        screen.stage(train.name)
        training, reused = reuse(train, tasks.training_intact, experiment, simulations, run_id)
        record_training(tracker, experiment, train.name, training, reused)
        screen.trained(training, reused)

        screen.stage("diagnose")
        diagnosis = tasks.diagnose(experiment, simulations, training, run_id)
        screen.diagnosed(diagnosis)

        screen.stage("register")
        registered = tasks.register_model(experiment, training, diagnosis, run_id)
        tracker.set_tags({"model": registered["uri"]})
        screen.registered(registered)

        screen.stage("infer")
        inference = tasks.infer(experiment, registered, run_id)
        screen.inferred(inference)

        composition = None
        if experiment.compose is not None:
            screen.stage("compose")
            composition = tasks.compose(experiment, registered, run_id)
            screen.composed(composition)

        tracker.set_tags({DESCRIPTION_TAG: describe(registered, inference, composition)})
        artifacts = tracker.artifact_path
    return {
        "run_id": run_id,
        "artifacts": None if artifacts is None else str(artifacts),
        "simulations": simulations,
        "training": training,
        "diagnosis": diagnosis,
        "registered": registered,
        "inference": inference,
        "composition": composition,
    }


def run(experiment: Experiment) -> Manifest:
    """Run the pipeline on the engine that PREFECT_API_URL names, or on a temporary one, and show the result."""
    end_on_sigterm()
    with local_prefect():
        result: Manifest = pipeline(experiment)
    Screen(experiment).finished(result)
    return result


def start_run(experiment: Experiment) -> Tracker:
    """The MLflow run of this pipeline run; one that was killed half-way is opened again.

    Raises:
        ConfigurationError: if settings do not fit together, before anything is simulated.
    """
    workflow_of(experiment)
    return Tracker.start(
        open_store(project_root()),
        experiment.name,
        f"{experiment.name} pipeline",
        key=content_key("train", simulator_fingerprint(experiment), experiment.model_dump()),
        params=experiment.model_dump(),
    )


def reuse(task: "Task[..., Manifest]", intact: Callable[[Manifest], bool], *arguments: Any) -> tuple[Manifest, bool]:
    """The manifest of a task, and whether it was finished in an earlier run; what is damaged on disk is made again."""
    state = cast(State[Manifest], task(*arguments, return_state=True))
    manifest = state.result()
    if intact(manifest):
        return manifest, state.name == "Cached"
    manifest = task.with_options(refresh_cache=True)(*arguments)
    if not intact(manifest):
        raise DataError(f"What the task {task.name} has just written cannot be read back: {manifest}. Check the disk.")
    return manifest, False


def describe(registered: Manifest, inference: Manifest, composition: Manifest | None) -> str:
    """The description of the run in the UI, as Markdown: the answers, and the model that gave them."""
    lines = [f"Posteriors of the real observations, drawn from `{registered['uri']}`:", "", *_markdown(inference["table"])]
    lines += ["", f"Certificates: {in_short(inference['certificates'])}."]
    if composition is not None:
        lines += ["", "The posterior given all of them together:", "", *_markdown(composition["table"])]
    return "\n".join(lines)


def _markdown(table: list[Manifest]) -> list[str]:
    names = list(table[0])
    rows = [[cell if isinstance(cell, str) else f"{cell:.6g}" for cell in row.values()] for row in table]
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]


def record_simulations(tracker: Tracker, simulations: Manifest, reused: bool) -> None:
    """The data sets as inputs of the run, with their hashes."""
    for purpose, folder in simulations["stores"].items():
        store = SimulationStore.open(folder)
        tracker.log_dataset(purpose, folder, store.load(), store.content_hash, purpose)
    tracker.set_tags({"simulate": "reused" if reused else "made", "simulate.key": simulations["key"]})
    tracker.log_metrics({"simulate.seconds": simulations["seconds"]})


def record_training(tracker: Tracker, experiment: Experiment, task: str, training: Manifest, reused: bool) -> None:
    """The losses of each epoch, where the run has not got them, the seconds, the checkpoint, and what is known of each member."""
    run = RunWithMembers(Tracker.attach(tracker.store, tracker.run_id), experiment)  # knows what the task logged while it trained
    run.log_history(training["history"])
    for name, member in training.get("members", {}).items():
        run.members[name].log_metrics(member["numbers"])
        run.members[name].log_json(member["architecture"], "architecture.json")
        tracker.log_metrics({f"weight.{name}": member["numbers"]["weight"]})
    tracker.set_tags({task: "reused" if reused else "made", f"{task}.key": training["key"], "model.sha256": training["sha256"]})
    tracker.log_metrics({f"{task}.seconds": training["seconds"]})
    tracker.log_file(training["model"], "checkpoints")
