"""Record of the outcomes of steps in the MLflow run of a pipeline run."""

from collections.abc import Mapping

import numpy as np

from sbi_models.pipeline.experiment.training_settings import Member
from sbi_models.pipeline.member_runs import RunWithMembers
from sbi_models.pipeline.outcomes import Decision, FilesOutcome, Outcome, Registered, Simulations, Training
from sbi_models.tracking import Tracker
from sbi_models.tracking.names import keys_of


def record_simulations(
    tracker: Tracker, simulations: Simulations, reused: bool, seconds: float | None = None
) -> None:
    """Log the data sets as inputs of the run, with their hashes."""
    for purpose, folder in simulations.stores.items():
        store = simulations.store(purpose)
        kinds = store.manifest["schema"]
        ragged = [name for name, kind in kinds.items() if None in kind["shape"]]
        shapes = {
            name: np.broadcast_to(row[0], (store.num_simulations, *row.shape[1:]))
            for name, row in store.rows(0, 1).items()
        } | store.rows(0, store.num_simulations, ragged)
        tracker.log_dataset(purpose, folder, shapes, store.content_hash, purpose)
    tracker.log_metrics(
        {f"contexts.{purpose}": number for purpose, number in simulations.num_contexts.items()}
    )
    tracker.set_tags({"simulate.key": simulations.key})
    _record_seconds(tracker, "simulate", simulations, reused, seconds)


def record_training(
    tracker: Tracker,
    members: Mapping[str, Member],
    step: str,
    training: Training,
    *,
    reused: bool,
    seconds: float | None = None,
) -> None:
    """Log losses that the run has not got, the seconds, the checkpoint, and the numbers of members."""
    run = RunWithMembers(
        Tracker.attach(tracker.store, tracker.run_id), members
    )  # knows what the step logged while it trained
    run.log_history(training.history)
    keys = keys_of(training.members)
    for name, member in training.members.items():
        run.members[name].log_metrics(member.numbers)
        run.members[name].log_json(member.architecture, "architecture.json")
        tracker.log_metrics({f"weight.{keys[name]}": member.weight})
    if training.choices:
        tracker.log_json(training.choices, "choices.json")
    tracker.set_tags({f"{step}.key": training.key, "model.sha256": training.sha256})
    _record_seconds(tracker, step, training, reused, seconds)
    tracker.log_file(training.model, "checkpoints")


def record_files(
    run: RunWithMembers, step: str, outcome: FilesOutcome, reused: bool, seconds: float | None = None
) -> None:
    """Log files, metrics and tags of a step, in the run and those of members."""
    log_files(run.tracker, outcome)
    for name, part in outcome.parts.items():
        log_files(run.members[name], part)
    _record_seconds(run.tracker, step, outcome, reused, seconds)


def log_files(tracker: Tracker, outcome: FilesOutcome) -> None:
    """Copy the files of an outcome to a run, and set its metrics and tags."""
    if outcome.files:
        tracker.log_folder(outcome.folder)
    tracker.log_metrics(outcome.metrics)
    tracker.set_tags(outcome.tags)


def record_decision(tracker: Tracker, registered: Registered, decision: Decision) -> None:
    """Log the version, the decision of the gate, and the difference of the challenger from the champion."""
    tracker.set_tags(
        {
            "model": registered.uri,
            "gate": "passed" if decision.promoted else "refused",
            "gate.reason": "; ".join(decision.reasons),
        }
    )
    if decision.comparisons:
        row = decision.comparisons[0]
        tracker.set_tags({"gate.comparison": row.word})
        numbers = {
            name: float(getattr(row, name))
            for name in ("difference", "low", "high", "margin", "num_simulations")
        }
        tracker.log_metrics({f"gate.{name}": value for name, value in numbers.items() if np.isfinite(value)})


def _record_seconds(
    tracker: Tracker, step: str, outcome: Outcome, reused: bool, seconds: float | None
) -> None:
    """Log whether a step was made or reused, the seconds that it took, and those of using it again."""
    tracker.set_tags({step: "reused" if reused else "made"})
    again = {f"{step}.seconds_of_reuse": seconds} if reused and seconds is not None else {}
    tracker.log_metrics({f"{step}.seconds": outcome.seconds} | again)
