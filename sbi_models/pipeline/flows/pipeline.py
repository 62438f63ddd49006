"""The pipeline: simulate -> train or ensemble -> diagnose -> register -> infer -> compose, as one Prefect
flow and one MLflow run."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, cast

import numpy as np
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.tasks import Task

from sbi_models.errors import ConfigurationError, DataError
from sbi_models.pipeline import tasks
from sbi_models.pipeline.cache import (
    content_key,
    refuse_changed_sources,
    simulator_fingerprint,
    store_key,
    train_key,
)
from sbi_models.pipeline.data_checks import check_data
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.member_runs import RunWithMembers
from sbi_models.pipeline.outcomes import record
from sbi_models.pipeline.report.console import Screen
from sbi_models.pipeline.report.html import publish_report
from sbi_models.pipeline.report.posteriors import MEAN_ERROR, SD_RATIO
from sbi_models.pipeline.report.tables import digits_of, fixed
from sbi_models.pipeline.report.usage import FILE
from sbi_models.pipeline.runtime import forget, project_root
from sbi_models.pipeline.source_record import record_source
from sbi_models.pipeline.steps.certify import in_short
from sbi_models.pipeline.steps.register import check_gate, described, judge_challenger
from sbi_models.pipeline.steps.sequential import check_narrowing, round_of
from sbi_models.pipeline.steps.simulate import (
    missing_shards,
    more_tests,
    refuse_stale,
    simulate_missing,
    stores_of,
)
from sbi_models.pipeline.steps.train import workflow_of
from sbi_models.pipeline.steps.train_members import train_members
from sbi_models.tracking import FLOW_TAG, Tracker, open_store
from sbi_models.tracking.names import keys_of
from sbi_models.training.environment import check_accelerator

Manifest = dict[str, Any]

DESCRIPTION_TAG = "mlflow.note.content"


@flow(name="pipeline", persist_result=False)
def pipeline(experiment: Experiment, fresh: bool = False) -> Manifest:
    """Run an experiment. Finished tasks are used again, unless it is to be fresh; everything is tracked in
    one MLflow run."""
    screen = Screen(experiment)
    with start_run(experiment) as tracker:
        run = RunWithMembers(tracker, experiment)
        record_source(tracker, experiment)
        tracker.log_environment()

        if experiment.narrow is not None:
            screen.stage("narrow")
            experiment = narrowed(experiment, tracker, screen, fresh=fresh)
        screen.stage("simulate")
        simulations, reused = simulated(experiment, fresh=fresh)
        record_simulations(tracker, simulations, reused, screen.seconds)
        screen.simulated(simulations, reused)

        train = tasks.train if experiment.ensemble is None else tasks.ensemble
        screen.stage(train.name)
        training, reused = trained(train, experiment, simulations, tracker.run_id, fresh=fresh)
        record_training(tracker, experiment, train.name, training, reused=reused, seconds=screen.seconds)
        screen.trained(training, reused)

        screen.stage("diagnose")
        diagnosis, reused = reuse(
            tasks.diagnose, tasks.outcome_intact, experiment, simulations, training, fresh=fresh
        )
        record_step(run, "diagnose", diagnosis, reused, screen.seconds)
        screen.diagnosed(diagnosis, reused)

        screen.stage("register")
        registered = tasks.register_model(experiment, training, diagnosis, tracker.run_id)
        decision = judged(experiment, simulations, diagnosis, registered)
        record_gate(tracker, registered, decision)
        screen.registered(registered, decision)

        inference, composition = None, None
        if study_of(experiment).observations()[0]:
            screen.stage("infer")
            inference, reused = reuse(
                tasks.infer, tasks.outcome_intact, experiment, training, registered, fresh=fresh
            )
            record_step(run, "infer", inference, reused, screen.seconds)
            screen.inferred(inference, reused)
        if experiment.compose is not None:
            screen.stage("compose")
            composition, reused = reuse(
                tasks.compose, tasks.outcome_intact, experiment, training, registered, fresh=fresh
            )
            record_step(run, "compose", composition, reused, screen.seconds)
            screen.composed(composition, reused)

        tracker.set_tags({DESCRIPTION_TAG: describe(registered, decision, inference, composition)})
        artifacts = tracker.artifact_path
        result: Manifest = {
            "run_id": tracker.run_id,
            "artifacts": None if artifacts is None else str(artifacts),
            "simulations": simulations,
            "training": training,
            "diagnosis": diagnosis,
            "registered": registered,
            "gate": decision,
            "inference": inference,
            "composition": composition,
        }
        error = publish_report(tracker, experiment, result)
    return result | {"report": FILE if error is None else None, "report_error": error}


def start_run(experiment: Experiment) -> Tracker:
    """The MLflow run of this pipeline run; one that was killed half-way is opened again.

    Raises:
        ConfigurationError: if settings do not fit together, before anything is simulated; as `check_data` for
            data that do not.
    """
    if experiment.narrowed_to is not None:
        raise ConfigurationError("Expected no narrowed_to, which the pipeline finds, got some. Leave it out.")
    refuse_changed_sources(experiment)
    workflow = workflow_of(experiment)
    approximator = workflow.approximator
    check_narrowing(experiment, approximator)
    trains_here = experiment.ensemble is None or experiment.engine.kind == "threads"
    if trains_here and missing_shards(experiment):
        check_accelerator(workflow.settings)
    check_gate(experiment)
    check_data(experiment, approximator)
    return Tracker.start(
        open_store(project_root()),
        experiment.name,
        f"{experiment.name} pipeline",
        key=content_key("train", simulator_fingerprint(experiment), experiment.what_matters()),
        params=experiment.model_dump(mode="json", exclude={"narrowed_to"}),
        tags={FLOW_TAG: "pipeline"},
        folder=experiment.folder,
    )


def narrowed(experiment: Experiment, tracker: Tracker, screen: Screen, *, fresh: bool) -> Experiment:
    """The experiment with the prior that the rounds before the main one have led to; each round is a child
    run."""
    assert experiment.narrow is not None
    for number in range(experiment.narrow.rounds):
        early = round_of(experiment, number)
        settings = {
            "training": early.simulate.training,
            "validation": early.simulate.validation,
            "seed": early.seed,
        }
        own = tracker.child(f"round {number + 1}", settings)
        simulations, simulations_reused = simulated(early, fresh=fresh)
        record_simulations(own, simulations, simulations_reused)
        task = tasks.train if early.ensemble is None else tasks.ensemble
        training, training_reused = trained(task, early, simulations, own.run_id, fresh=fresh)
        record_training(own, early, task.name, training, reused=training_reused)
        found, reused = reuse(tasks.narrow, lambda manifest: True, early, training, fresh=fresh)
        own.log_json(found["prior"], "prior.json")
        experiment = experiment.model_copy(update={"narrowed_to": found["prior"]})
        screen.narrowed(number, simulations, training, found, reused)
    return experiment


def simulated(experiment: Experiment, *, fresh: bool) -> tuple[Manifest, bool]:
    """The manifest of the simulations, and whether all of them were there; what is missing or damaged on disk
    is computed.

    Raises:
        DataError: if what is there is not what the simulator gives now, or simulations are there twice.
    """
    started = perf_counter()
    if fresh:
        forget(store_key(experiment))
    refuse_stale(experiment)
    made = simulate_missing(experiment)
    taken = perf_counter() - started if made else 0.0
    manifest, _ = reuse(
        tasks.simulate, tasks.simulations_intact, experiment, stores_of(experiment), taken, fresh=fresh
    )
    again = {"seconds": perf_counter() - started} if made else {}
    return manifest | {"made": made} | again, made == 0


def trained(
    task: "Task[..., Manifest]", experiment: Experiment, simulations: Manifest, run_id: str, *, fresh: bool
) -> tuple[Manifest, bool]:
    """The manifest of the training, and whether it was finished in an earlier run."""
    if fresh:
        forget(train_key(experiment, simulations["content_hash"]))
    started = perf_counter()
    train_members(experiment, simulations, run_id)
    return reuse(
        task, tasks.training_intact, experiment, simulations, run_id, perf_counter() - started, fresh=fresh
    )


def reuse(
    task: "Task[..., Manifest]", intact: Callable[[Manifest], bool], *arguments: Any, fresh: bool = False
) -> tuple[Manifest, bool]:
    """The manifest of a task, and whether it was finished in an earlier run; what is damaged on disk is made
    again, or all if fresh."""
    state = cast(
        State[Manifest],
        (task.with_options(refresh_cache=True) if fresh else task)(*arguments, return_state=True),
    )
    manifest = state.result()
    if intact(manifest):
        return manifest, state.name == "Cached"
    manifest = task.with_options(refresh_cache=True)(*arguments)
    if not intact(manifest):
        raise DataError(
            f"What the task {task.name} has just written cannot be read back: {manifest}. Check the disk."
        )
    return manifest, False


def judged(
    experiment: Experiment, simulations: Manifest, diagnosis: Manifest, registered: Manifest
) -> Manifest:
    """Whether the challenger becomes the champion, and why; as many more test simulations are made as it
    takes to tell."""
    test, verdict = tasks.simulations_for_tests(simulations), diagnosis["verdict"]
    return judge_challenger(
        open_store(project_root()),
        experiment,
        registered,
        verdict,
        test,
        tests=partial(more_tests, experiment),
    )


def describe(
    registered: Manifest, decision: Manifest, inference: Manifest | None, composition: Manifest | None
) -> str:
    """The description of the run in the UI, as Markdown: the answers, and the model that gave them."""
    lines = [f"Model `{registered['uri']}`. {described(decision, registered['version'])}", ""]
    if inference is not None:
        how = "drawn from it and weighted by the likelihood" if inference["corrections"] else "drawn from it"
        lines += [f"Posteriors of the real observations, {how}:", "", *_markdown(inference["table"])]
        lines += ["", f"Certificates: {in_short(inference['certificates'])}."]
    if composition is not None:
        lines += ["", "The posterior given all of them together:", "", *_markdown(composition["table"])]
    return "\n".join(lines)


def _markdown(table: list[Manifest]) -> list[str]:
    names = list(table[0])
    rows = [[_cell(name, cell, digits_of(row["sd"]) + 2) for name, cell in row.items()] for row in table]
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]


def _cell(name: str, value: Any, digits: int) -> str:
    """Of numbers in the unit of the quantity so many decimals, so that a mean of 1e9 has those that its sd
    asks for."""
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if name in (MEAN_ERROR, SD_RATIO) else fixed(value, digits)


def record_simulations(
    tracker: Tracker, simulations: Manifest, reused: bool, seconds: float | None = None
) -> None:
    """The data sets as inputs of the run, with their hashes."""
    for purpose, folder in simulations["stores"].items():
        store = tasks.simulations(simulations, purpose)
        shapes = {
            name: np.broadcast_to(row[0], (store.num_simulations, *row.shape[1:]))
            for name, row in store.rows(0, 1).items()
        }
        tracker.log_dataset(purpose, folder, shapes, store.content_hash, purpose)
    tracker.set_tags({"simulate.key": simulations["key"]})
    _record_seconds(tracker, "simulate", simulations, reused, seconds)


def record_training(
    tracker: Tracker,
    experiment: Experiment,
    task: str,
    training: Manifest,
    *,
    reused: bool,
    seconds: float | None = None,
) -> None:
    """The losses of each epoch, where the run has not got them, the seconds, the checkpoint, and what is
    known of each member."""
    run = RunWithMembers(
        Tracker.attach(tracker.store, tracker.run_id), experiment
    )  # knows what the task logged while it trained
    run.log_history(training["history"])
    keys = keys_of(training.get("members", {}))
    for name, member in training.get("members", {}).items():
        run.members[name].log_metrics(member["numbers"])
        run.members[name].log_json(member["architecture"], "architecture.json")
        tracker.log_metrics({f"weight.{keys[name]}": member["numbers"]["weight"]})
    if "choices" in training:
        tracker.log_json(training["choices"], "choices.json")
    tracker.set_tags({f"{task}.key": training["key"], "model.sha256": training["sha256"]})
    _record_seconds(tracker, task, training, reused, seconds)
    tracker.log_file(training["model"], "checkpoints")


def record_step(
    run: RunWithMembers, task: str, outcome: Manifest, reused: bool, seconds: float | None = None
) -> None:
    """What a task has left: files, metrics and tags, in the run and those of members."""
    record(run.tracker, outcome)
    for name, member in outcome.get("members", {}).items():
        record(run.members[name], member)
    _record_seconds(run.tracker, task, outcome, reused, seconds)


def _record_seconds(
    tracker: Tracker, task: str, manifest: Manifest, reused: bool, seconds: float | None
) -> None:
    """Whether a task was made or reused, the seconds that making it took, whenever that was, and those that
    using it again took."""
    tracker.set_tags({task: "reused" if reused else "made"})
    again = {f"{task}.seconds_of_reuse": seconds} if reused and seconds is not None else {}
    tracker.log_metrics({f"{task}.seconds": manifest["seconds"]} | again)


def record_gate(tracker: Tracker, registered: Manifest, decision: Manifest) -> None:
    """The version, what the gate has said, as tags, and by how much the challenger differs from the champion,
    as metrics."""
    passed = "passed" if decision["promoted"] else "refused"
    tracker.set_tags(
        {"model": registered["uri"], "gate": passed, "gate.reason": "; ".join(decision["reasons"])}
    )
    if decision["comparisons"]:
        with_champion = decision["comparisons"][0]
        tracker.set_tags({"gate.comparison": with_champion["word"]})
        numbers = {
            name: with_champion[name] for name in ("difference", "low", "high", "margin", "num_simulations")
        }
        tracker.log_metrics({f"gate.{name}": value for name, value in numbers.items() if np.isfinite(value)})
