"""One of the flows from the command line: on the Prefect server that the environment names, or on one that is started for it."""

# Prefect looks for its folders when it is imported, and its server starts while MLflow and PyTorch are imported: both take seconds.
# ruff: noqa: E402, PLC0415

from flows.runtime import end_on_sigterm, make_folders

make_folders()

from typing import Any

from flows.local_server import LocalPrefect
from flows.parameters import Experiment
from flows.voice import answer_json
from sbi_models.importing import quick_imports


def run_flow(name: str, experiment: Experiment) -> dict[str, Any]:
    """Run the flow "pipeline", "retrain" or "monitor" of an experiment to its end, and show what has come out; the result of the flow.

    Raises:
        SbiModelsError: whatever of them the flow raises.
    """
    end_on_sigterm()
    server = LocalPrefect()
    server.begin()
    with quick_imports(freeze=True):
        from flows.answers import pipeline_answer
        from flows.monitor import monitor, watch_answer
        from flows.pipeline import pipeline
        from flows.retrain import retrain
        from flows.screen import Screen, show_monitored
    with server:
        result: dict[str, Any] = {"pipeline": pipeline, "retrain": retrain, "monitor": monitor}[name](experiment)
    if name == "monitor":
        show_monitored(result)
        answer_json(watch_answer(result["run_id"], result["model"], result))
    else:
        Screen(experiment).finished(result)
        answer_json(pipeline_answer(name, experiment, result))
    return result
