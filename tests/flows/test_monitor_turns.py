"""The flow that monitors a champion, without its steps: turns, files, notes on the version, and alarms."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import small_experiment

from sbi_models.errors import DriftError
from sbi_models.pipeline.flows import monitor as monitoring
from sbi_models.pipeline.outcomes import Results

CALIBRATED = {"label": "calibrated", "is_calibrated": True, "sentence": "Calibrated."}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the flow does to a store, without one; its diagnosis and p-value are those given in it."""
    found: dict[str, Any] = {"verdict": CALIBRATED, "p_value": None, "turns": []}
    monkeypatch.chdir(tmp_path)
    champion = SimpleNamespace(uri="models:/m/2", name="m", version=2)

    @contextmanager
    def start(store: Any, question: Any, uri: str, turn: int) -> Any:
        found["turn"] = turn
        yield SimpleNamespace(run_id="run")

    for name, stand_in in {
        "refuse_changed_sources": lambda question: None,
        "open_store": lambda *given, **options: None,
        "load": lambda *given, **options: None,
        "version_of": lambda store, address: champion,
        "watches": lambda store, experiment: [
            SimpleNamespace(params={"turn": str(turn)}) for turn in found["turns"]
        ],
        "start_watch": start,
        "watch": monitoring.watch.fn,
        "diagnose_afresh": lambda *given: found["verdict"],
        "look_at_observations": lambda *given: found["p_value"],
        "log_files": lambda tracker, result: found.update(logged=result),
        "annotate": lambda store, name, version, tags: found.update(tags=tags, noted=(name, version)),
    }.items():
        monkeypatch.setattr(monitoring, name, stand_in)
    return found


@pytest.mark.parametrize(("before", "turn"), [([], 1), ([1], 2), ([3, 7, 5], 8)])
def test_a_turn_is_one_more_than_the_largest_so_far(
    seen: dict[str, Any], before: list[int], turn: int
) -> None:
    """Whatever their order; what was found is logged, and noted on the version."""
    seen["turns"] = before
    result = monitoring.monitor.fn(small_experiment({}))
    assert seen["turn"] == turn
    assert seen["logged"] == result.monitoring
    assert seen["noted"] == ("m", 2)
    assert (seen["tags"]["monitor.verdict"], seen["tags"]["monitor.drift"]) == ("calibrated", "not known")
    assert result.monitoring.tags["alarms"] == "none"


def test_alarms_fail_the_flow_after_they_are_logged(seen: dict[str, Any]) -> None:
    """A p-value below the level and a flaw are two alarms, in the error and in the tags of the run."""
    seen |= {"p_value": 1e-4, "verdict": {**CALIBRATED, "is_calibrated": False, "sentence": "Biased."}}
    with pytest.raises(DriftError, match=r"models:/m/2: .*Biased\. .*not like the simulations"):
        monitoring.monitor.fn(small_experiment({}))
    logged = seen["logged"]
    assert (len(logged.alarms), logged.drift) == (2, "yes")
    assert logged.tags["alarms"] == " ".join(logged.alarms)


def test_the_p_value_of_the_observations_is_a_metric(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That of the known ones, by certificates; without observations there is none."""
    p_values = [0.2, None, 0.9]
    monkeypatch.setattr(
        monitoring, "certify_observations", lambda *given: [{"novelty": value} for value in p_values]
    )
    results = Results(tmp_path / "found")
    question = SimpleNamespace(study=SimpleNamespace(observations=lambda: (["a", "b", "c"], {})))
    found = monitoring.look_at_observations(question, None, results)
    assert results.metrics == {"drift.p_value": found}
    assert found == monitoring.drift_p_value([0.2, 0.9])
    nothing = SimpleNamespace(study=SimpleNamespace(observations=lambda: ([], {})))
    assert monitoring.look_at_observations(nothing, None, results) is None
