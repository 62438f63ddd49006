"""One of the flows from the command line: on the Prefect server that the environment names, or on one that is
started for it."""

# The server of Prefect starts while MLflow and PyTorch are imported: both take seconds.
# ruff: noqa: PLC0415

from collections.abc import Callable
from typing import Any

from sbi_models.malloc import keep_freed_memory
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.prefect_server.for_one_run import LocalPrefect
from sbi_models.pipeline.report.output import answer_json
from sbi_models.pipeline.runtime import end_on_signals, quick_imports, run_settings


def run_flow(name: str, experiment: Experiment, *, fresh: bool = False) -> dict[str, Any]:
    """Run the flow "pipeline", "retrain" or "monitor" of an experiment to its end, and show what has come
    out; the result of the flow.

    With fresh, the pipeline uses nothing again that is finished.

    Raises:
        SbiModelsError: whatever of them the flow raises.
    """
    end_on_signals()
    keep_freed_memory()
    with run_settings():
        return _run(name, experiment, fresh=fresh)


def _run(name: str, experiment: Experiment, *, fresh: bool) -> dict[str, Any]:
    server = LocalPrefect()
    server.begin()
    with quick_imports(freeze=True):
        from sbi_models.pipeline.flows.monitor import monitor, watch_answer
        from sbi_models.pipeline.flows.pipeline import pipeline
        from sbi_models.pipeline.flows.retrain import retrain
        from sbi_models.pipeline.report.console import Screen, show_monitored
        from sbi_models.pipeline.report.json_summary import pipeline_answer
    flows: dict[str, Callable[[Experiment], dict[str, Any]]] = {"retrain": retrain, "monitor": monitor}
    with server:
        result = flows[name](experiment) if name in flows else pipeline(experiment, fresh=fresh)
    if name == "monitor":
        show_monitored(result)
        answer_json(watch_answer(result["run_id"], result["model"], result))
    else:
        Screen(experiment).finished(result)
        answer_json(pipeline_answer(name, experiment, result))
    return result
