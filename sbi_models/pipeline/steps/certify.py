"""Certificates of real observations: whether each can be trusted, written to the run and shown on the
screen."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sbi_models import seeding
from sbi_models.approximators import Approximator, ContinuousApproximator, EnsembleApproximator
from sbi_models.approximators.certificates.certificate import LARGEST_PARETO_K, p_in_words
from sbi_models.pipeline.experiment.settings import Experiment
from sbi_models.pipeline.experiment.study_loading import study_of
from sbi_models.pipeline.outcomes import Manifest, Results
from sbi_models.pipeline.report.output import show
from sbi_models.simulators import Simulator
from sbi_models.tracking.names import keys_of, name_tags
from sbi_models.types import Variables
from sbi_models.workflows import BasicWorkflow, EnsembleWorkflow

P_VALUES = {"p_value": "p", "novelty": "novelty", "agreement": "agreement", "predictive": "predictive"}
WEIGHTS = {
    "effective_sample_size": "effective",
    "raw_effective_sample_size": "raw",
    "largest_weight": "largest weight",
    "pareto_k": "Pareto k",
}
_MEANINGS = {
    "p_value": "p-value of all tests together; at {level:g} or below it is failed, as {level:.0%} of good "
    "data sets are",
    "effective_sample_size": "share of the draws that the exact posterior has use for",
    "raw_effective_sample_size": "the same before the weights of draws are smoothed; far less where a mode is missed",
    "largest_weight": "share of the weight that one draw has",
    "pareto_k": f"tail of the weights of draws; above {LARGEST_PARETO_K}, weighting would not mend draws of "
    "which few are of use",
}
_STYLES = {"passed": "green", "failed": "red", "not known": "yellow"}


def certify_observations(
    experiment: Experiment,
    approximator: Approximator,
    labels: Sequence[str],
    observations: Variables,
    results: Results,
) -> list[Manifest]:
    """Certificates of real observations, raw variables (num_datasets, ...), by approximator, simulator and
    likelihood; all to the results."""
    study, seed = study_of(experiment), seeding.derive(experiment.seed, "certificates")
    workflow = workflow_with(study.simulator, approximator)
    found = workflow.certify(observations, num_replicates=experiment.infer.predictive_replicates, seed=seed)
    certificates = [
        {"data_set": label, **certificate.as_dict()} for label, certificate in zip(labels, found, strict=True)
    ]
    results.json(certificates, "inference/certificates.json")
    metrics = {
        "certificate.failed": float(sum(certificate["verdict"] == "failed" for certificate in certificates))
    }
    keys = keys_of(labels)
    for certificate in certificates:
        name = keys[certificate["data_set"]]
        numbers = {key: certificate[key] for key in (*P_VALUES, *WEIGHTS) if certificate[key] is not None}
        metrics |= {f"certificate.{key}.{name}": value for key, value in numbers.items()}
    results.metrics |= metrics
    results.tags |= {"certificate": in_short(certificates)} | name_tags("data_set", keys)
    return certificates


def workflow_with(simulator: Simulator, approximator: Approximator) -> BasicWorkflow | EnsembleWorkflow:
    """A workflow of a trained approximator."""
    if isinstance(approximator, EnsembleApproximator):
        return EnsembleWorkflow(simulator, inference_networks=approximator)
    assert isinstance(approximator, ContinuousApproximator)
    return BasicWorkflow(simulator, inference_network=approximator)


def in_short(certificates: Sequence[Mapping[str, Any]]) -> str:
    """How many data sets passed, and which did not."""
    passed = sum(certificate["verdict"] == "passed" for certificate in certificates)
    others = [
        f"{certificate['data_set']} {certificate['verdict']}"
        for certificate in certificates
        if certificate["verdict"] != "passed"
    ]
    shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    return f"{passed} of {len(certificates)} passed" + (f": {shown}" if others else "")


def show_certificates(
    console: Console, data_set_name: str, certificates: Sequence[Mapping[str, Any]]
) -> None:
    """A table with a row a data set, what its columns mean, and why some should not be trusted; columns that
    hold nothing are left out.

    The columns: p-values of all tests together, of novelty, of the agreement of members and of the predictive
    check; of importance weights the effective share of the draws and Pareto k.
    """
    columns = {
        key: title
        for key, title in (P_VALUES | WEIGHTS).items()
        if any(c[key] is not None for c in certificates)
    }
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in (data_set_name, "certificate", *columns.values()):
        table.add_column(
            title, justify="left" if title in (data_set_name, "certificate") else "right", no_wrap=True
        )
    for certificate in certificates:
        verdict = certificate["verdict"]
        numbers = (_number(key, certificate[key], certificate["level"]) for key in columns)
        table.add_row(
            escape(certificate["data_set"]), f"[{_STYLES[verdict]}]{verdict}[/{_STYLES[verdict]}]", *numbers
        )
    console.print(table)
    level = certificates[0]["level"]
    meanings = {
        title: _MEANINGS[key].format(level=level) for key, title in columns.items() if key in _MEANINGS
    }
    if meanings:
        console.print()
        for title, meaning in meanings.items():
            show(console, f"{title}: {meaning}", indent=4)
    reasons: dict[str, list[str]] = {}
    for certificate in certificates:
        for warning in certificate["warnings"]:
            reasons.setdefault(warning, []).append(certificate["data_set"])
    for warning, labels in reasons.items():
        which = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
        lines = _laid_out(f"{data_set_name} {which}: {warning}")
        console.print()
        for line in lines:
            show(console, f"[yellow]{escape(line)}[/yellow]", indent=4)


def _number(key: str, value: float | None, level: float) -> str:
    if value is None:
        return "-"
    if key in P_VALUES:
        return p_in_words(value, level)
    return f"{value:.2g}" if key == "pareto_k" else f"{100 * value:.1f} %"


def _laid_out(warning: str) -> list[str]:
    """A warning as lines: the statistics that follow its p-value have one each."""
    head, found, statistics = warning.partition("): ")
    if not found:
        return [warning]
    return [f"{head}):", *(f"    {statistic}" for statistic in statistics.removesuffix(".").split("; "))]
