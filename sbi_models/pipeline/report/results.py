"""Results of flows on the console: in words, or as JSON under `--json`."""

from sbi_models.pipeline.experiment.question import question_of
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.outcomes import MonitorResult, PipelineResult
from sbi_models.pipeline.report.console import PipelineConsole, print_monitoring
from sbi_models.pipeline.report.json_summary import monitor_summary, pipeline_summary
from sbi_models.pipeline.report.output import print_json


def show_pipeline(experiment: Experiment, result: PipelineResult, flow: str = "pipeline") -> None:
    """Print posteriors, certificates, and where to look next."""
    PipelineConsole(question_of(experiment)).finished(result)
    print_json(pipeline_summary(flow, experiment.name, result))


def show_retraining(experiment: Experiment, result: PipelineResult) -> None:
    """Print the result of a retraining as that of a pipeline."""
    show_pipeline(experiment, result, "retrain")


def show_monitoring(experiment: Experiment, result: MonitorResult) -> None:
    """Print that nothing is wrong with the champion."""
    del experiment
    print_monitoring(result)
    print_json(monitor_summary(result))
