"""Flows are looked up by name in one registry, to which users add their own."""

from typing import Any

import pytest
from prefect import flow

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows import FLOWS, register_flow
from sbi_models.pipeline.schedule import Times, schedule


def test_the_flows_of_the_package_are_registered() -> None:
    """Each under the name that Prefect has for it."""
    assert {name: FLOWS.named(name).flow.name for name in ("pipeline", "retrain", "monitor")} == {
        "pipeline": "pipeline",
        "retrain": "retrain",
        "monitor": "monitor",
    }


def test_a_flow_of_a_user_is_looked_up_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered once, `schedule` serves it; what is no Prefect flow, and an unknown name, are refused."""
    monkeypatch.setattr(FLOWS, "_entries", dict(FLOWS._entries))
    served: list[Any] = []
    monkeypatch.setattr("sbi_models.pipeline.schedule.serve", lambda *given: served.append(given[0]))

    @register_flow("nightly", show=lambda experiment, result: None)
    @flow(name="nightly")
    def nightly(experiment: Experiment) -> None: ...

    schedule(load_experiment("michelson"), Times("0 3 * * *"), flow="nightly")
    assert served == [nightly]
    with pytest.raises(ConfigurationError, match=r"Unknown flow 'nightl'\. Did you mean 'nightly'"):
        schedule(load_experiment("michelson"), Times("0 3 * * *"), flow="nightl")
    with pytest.raises(ConfigurationError, match="Expected a Prefect flow to register as 'b', got function"):
        register_flow("b", show=lambda experiment, result: None)(lambda experiment: None)
