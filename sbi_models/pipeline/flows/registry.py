"""Registry of the flows that `sbi-models` runs and schedules by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import Flow

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.registry import Registry


@dataclass(frozen=True)
class NamedFlow:
    """A flow of an experiment, and how its result is shown.

    Attributes:
        flow: Prefect flow whose first argument is an experiment.
        show: function of experiment and result that prints it in words, and calls `print_json` of
            `sbi_models.pipeline.report.output` for `--json`, under which only that reaches standard output.
    """

    flow: Flow[..., Any]
    show: Callable[[Experiment, Any], None]


FLOWS: Registry[NamedFlow] = Registry("flow")
"""Flows by name; importing `sbi_models.pipeline.flows` registers the usual ones."""


def register_flow(name: str, show: Callable[[Experiment, Any], None]) -> Callable[[Any], Any]:
    """Decorator that adds a Prefect flow under a name; `show` as for `NamedFlow`."""

    def add(flow: Any) -> Any:
        if not isinstance(flow, Flow):
            raise ConfigurationError(
                f"Expected a Prefect flow to register as {name!r}, got {type(flow).__name__}. Put @flow "
                "below @register_flow."
            )
        FLOWS.register(name)(NamedFlow(flow, show))
        return flow

    return add
