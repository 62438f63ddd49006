"""The flows: pipeline, retrain and monitor. Each is registered under its name when its module is imported."""

from sbi_models.pipeline.flows import monitor, pipeline, retrain
from sbi_models.pipeline.flows.registry import FLOWS, NamedFlow, register_flow

__all__ = ["FLOWS", "NamedFlow", "monitor", "pipeline", "register_flow", "retrain"]
