"""One of the flows from the command line: on the Prefect server that the environment names, or on one that is started for it."""

# Prefect looks for its folders when it is imported, and its server starts while MLflow and PyTorch are imported: both take seconds.
# ruff: noqa: E402, PLC0415

from flows.runtime import end_on_sigterm, make_folders

make_folders()

from typing import Any

from flows.local_server import LocalPrefect
from flows.parameters import Experiment

FLOWS = ("pipeline", "retrain", "monitor")


def run_flow(name: str, experiment: Experiment) -> dict[str, Any]:
    """Run a flow of an experiment to its end, and show what has come out; the result of the flow.

    Raises:
        SbiModelsError: whatever of them the flow raises.
    """
    assert name in FLOWS, name
    end_on_sigterm()
    server = LocalPrefect()
    server.begin()
    result: dict[str, Any]
    if name == "monitor":
        from flows.monitor import monitor
        from flows.screen import show_monitored

        with server:
            result = monitor(experiment)
        show_monitored(result)
        return result
    from flows.pipeline import pipeline
    from flows.retrain import retrain
    from flows.screen import Screen

    with server:
        result = (pipeline if name == "pipeline" else retrain)(experiment)
    Screen(experiment).finished(result)
    return result
