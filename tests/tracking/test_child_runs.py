"""Runs below a run, such as those of the members of an ensemble: one of each name, ending with the run
above."""

import os
from collections import Counter

from sbi_models.tracking import Store, Tracker


def _below(store: Store, tracker: Tracker) -> list:
    return store.client.search_runs(
        [tracker.experiment_id], filter_string=f"tags.`mlflow.parentRunId` = '{tracker.run_id}'"
    )


def test_each_part_has_one_run_whatever_happened_before(store: Store) -> None:
    """A run that is opened again after it was left finds the runs of its parts, one of each name, with their
    points; they end with it."""
    left = Tracker.start(store, "npe", "first", "key-1")
    before = [left.child(name, {"network": {"name": name}}) for name in ("a", "it's b")]
    for epoch in range(3):
        before[0].log_epoch(epoch, {"loss": 1.0})
    before[0].flush()
    with Tracker.start(store, "npe", "first", "key-1") as tracker:
        children = {
            name: tracker.child(name, {"network": {"name": "new", "width": 3}})
            for name in ("a", "it's b", "c")
        }
        assert [child.reopened for child in children.values()] == [True, True, False]
        for epoch in range(4):
            children["a"].log_epoch(epoch, {"loss": 1.0})
        children["a"].flush()
        assert tracker.child("a").run_id == children["a"].run_id
        assert tracker.child("a").run_id != Tracker.start(store, "npe", "second", "key-2").child("a").run_id
    runs = _below(store, tracker)
    assert Counter(run.info.run_name for run in runs) == {"a": 1, "it's b": 1, "c": 1}
    assert {run.info.status for run in runs} == {"FINISHED"}
    (a,) = [run for run in runs if run.info.run_name == "a"]
    assert a.data.params == {"network.name": "a", "network.width": "3"}
    assert sorted(point.step for point in store.client.get_metric_history(a.info.run_id, "loss")) == [
        0,
        1,
        2,
        3,
    ]


def test_parts_end_as_their_run_ends(store: Store) -> None:
    """Parts that are still running end FAILED with a run that failed; opened again, they run with it and end
    FINISHED."""
    for status in ("FAILED", "FINISHED"):
        tracker = Tracker.start(store, "npe", "first", "key-1")
        child = tracker.child("a")
        assert store.client.get_run(child.run_id).info.status == "RUNNING"
        tracker.finish(status)
        (run,) = _below(store, tracker)
        assert (run.info.run_id, run.info.status) == (child.run_id, status)
        assert run.data.tags["sbi_models.pid"] == str(os.getpid())
