"""Commands `run`, `retrain` and `monitor`: a flow on a Prefect server.

The server is the one that the environment names, or one that is started for it.
"""

# The server of Prefect starts while MLflow and PyTorch are imported: both take seconds.
# ruff: noqa: PLC0415

from typing import Any

from sbi_models.malloc import keep_freed_memory
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.prefect_server.for_one_run import LocalPrefect
from sbi_models.pipeline.runtime import end_on_signals, quick_imports, run_settings


def run_flow(name: str, experiment: Experiment, **options: Any) -> Any:
    """Run a registered flow of an experiment to its end, and show its result, which is returned.

    Args:
        name: name in the registry, such as "pipeline", "retrain" or "monitor".
        experiment: settings.
        options: other arguments of the flow, such as `fresh=True` of the pipeline, which then uses nothing
            again.

    Raises:
        SbiModelsError: whatever of them the flow raises.
    """
    end_on_signals()
    keep_freed_memory()
    with run_settings():
        return _run(name, experiment, options)


def _run(name: str, experiment: Experiment, options: dict[str, Any]) -> Any:
    server = LocalPrefect()
    server.begin()
    with quick_imports(freeze=True):
        from sbi_models.pipeline.flows import FLOWS
    named = FLOWS.named(name)
    with server:
        result = named.flow(experiment, **options)
    named.show(experiment, result)
    return result
