"""What a pipeline run has come to, for machines."""

from pathlib import Path
from typing import Any

from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.outcomes import Manifest


def pipeline_answer(flow: str, experiment: Experiment, result: Manifest) -> dict[str, Any]:
    """Run, model, verdict, posteriors, certificates, and where the page and the other files are; None where a
    run has no such thing.

    Args:
        flow: "pipeline" or "retrain".
        experiment: experiment that was run.
        result: result of the flow.
    """
    inference, composition, gate = (result[name] or {} for name in ("inference", "composition", "gate"))
    folder, page = result["artifacts"], result["report"]
    registered = result["registered"]
    return {
        "flow": flow,
        "experiment": experiment.name,
        "run_id": result["run_id"],
        "artifacts": folder,
        "report": str(Path(folder) / page) if folder and page else page,
        "model": {
            "name": registered["name"],
            "version": registered["version"],
            "uri": registered["uri"],
            "new": not registered["reused"],
            "is_champion": gate["champion"] == registered["version"],
            "champion": gate["champion"],
            "gate": gate["reasons"],
            "comparisons": gate["comparisons"],
        },
        "simulations": result["simulations"]["num_simulations"],
        "verdict": result["diagnosis"]["verdict"],
        "posteriors": inference.get("table"),
        "certificates": inference.get("certificates"),
        "corrections": inference.get("corrections") or None,
        "composition": (composition and {"posterior": composition["table"], "report": composition["report"]})
        or None,
    }
