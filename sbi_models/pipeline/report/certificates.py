"""Certificates of real observations on the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sbi_models.approximators.certificates.certificate import LARGEST_PARETO_K, p_in_words
from sbi_models.pipeline.certificate_summary import P_VALUES, WEIGHTS
from sbi_models.pipeline.report.output import print_line

_MEANINGS = {
    "p_value": "p-value of all tests together; at {level:g} or below it is failed, as {level:.0%} of good "
    "data sets are",
    "effective_sample_size": "share of the draws that the exact posterior has use for",
    "raw_effective_sample_size": "the same before the weights of draws are smoothed; far less "
    "where a mode is missed",
    "largest_weight": "share of the weight that one draw has",
    "pareto_k": f"tail of the weights of draws; above {LARGEST_PARETO_K}, weighting would not mend draws of "
    "which few are of use",
}
_STYLES = {"passed": "green", "failed": "red", "not known": "yellow"}


def print_certificates(
    console: Console, data_set_name: str, certificates: Sequence[Mapping[str, Any]]
) -> None:
    """Print certificates as a table, with the meaning of its columns and reasons not to trust a posterior.

    Columns that hold nothing are left out.

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
            print_line(console, f"{title}: {meaning}", indent=4)
    reasons: dict[str, list[str]] = {}
    for certificate in certificates:
        for warning in certificate["warnings"]:
            reasons.setdefault(warning, []).append(certificate["data_set"])
    for warning, labels in reasons.items():
        which = ", ".join(labels[:5]) + (", ..." if len(labels) > 5 else "")
        lines = _lines_of(f"{data_set_name} {which}: {warning}")
        console.print()
        for line in lines:
            print_line(console, f"[yellow]{escape(line)}[/yellow]", indent=4)


def _number(key: str, value: float | None, level: float) -> str:
    if value is None:
        return "-"
    if key in P_VALUES:
        return p_in_words(value, level)
    return f"{value:.2g}" if key == "pareto_k" else f"{100 * value:.1f} %"


def _lines_of(warning: str) -> list[str]:
    """A warning as lines: the statistics that follow its p-value have one each."""
    head, colon, statistics = warning.partition("): ")
    if not colon:
        return [warning]
    return [f"{head}):", *(f"    {statistic}" for statistic in statistics.removesuffix(".").split("; "))]
