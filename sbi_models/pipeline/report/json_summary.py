"""Results of flows as JSON, as commands print them under `--json`."""

from pathlib import Path
from typing import Any

from sbi_models.pipeline.outcomes import MonitorResult, PipelineResult


def pipeline_summary(flow: str, experiment_name: str, result: PipelineResult) -> dict[str, Any]:
    """Run, model, verdict, posteriors, certificates, and files; None where a run has no such thing.

    Args:
        flow: "pipeline" or "retrain".
        experiment_name: name of the experiment.
        result: result of the flow.
    """
    inference, composition, gate = result.inference, result.composition, result.gate
    folder, page, registered = result.artifacts, result.report, result.registered
    return {
        "flow": flow,
        "experiment": experiment_name,
        "run_id": result.run_id,
        "artifacts": folder,
        "report": str(Path(folder) / page) if folder and page else page,
        "model": {
            "name": registered.name,
            "version": registered.version,
            "uri": registered.uri,
            "new": not registered.reused,
            "is_champion": gate.champion == registered.version,
            "champion": gate.champion,
            "gate": gate.reasons,
            "comparisons": [comparison.model_dump() for comparison in gate.comparisons],
        },
        "simulations": result.simulations.num_simulations,
        "contexts": result.simulations.num_contexts or None,
        "verdict": result.diagnosis.verdict,
        "posteriors": None if inference is None else inference.table,
        "certificates": None if inference is None else inference.certificates,
        "corrections": None if inference is None else inference.corrections or None,
        "reports": None if inference is None else inference.reports or None,
        "composition": None
        if composition is None
        else {"posterior": composition.table, "report": composition.report},
    }


def monitor_summary(result: MonitorResult) -> dict[str, Any]:
    """Alarms, verdict and drift test of a monitoring."""
    names = ("alarms", "verdict", "drift", "p_value")
    rows = {name: getattr(result.monitoring, name) for name in names}
    return {"flow": "monitor", "run_id": result.run_id, "model": result.model} | rows
