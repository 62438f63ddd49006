"""Description of a pipeline run in MLflow's UI, as Markdown."""

from typing import Any

from sbi_models.pipeline.certificate_summary import in_short
from sbi_models.pipeline.learned_likelihood import doubts_in_short
from sbi_models.pipeline.outcomes import Composition, Decision, Inference, JSONObject, Registered
from sbi_models.pipeline.posterior_tables import MEAN_ERROR, SD_RATIO
from sbi_models.pipeline.report.numbers import digits_of, fixed
from sbi_models.pipeline.steps.register import described


def description(
    registered: Registered,
    decision: Decision,
    inference: Inference | None,
    composition: Composition | None,
) -> str:
    """The decision of the gate, posteriors and certificates."""
    lines = [f"Model `{registered.uri}`. {described(decision, registered.version)}", ""]
    if inference is not None:
        how = "drawn from it and weighted by the likelihood" if inference.corrections else "drawn from it"
        trust = f"Certificates: {in_short(inference.certificates)}."
        if inference.reports:
            trust = f"Draws: {doubts_in_short(inference.reports)}."
        lines += [f"Posteriors of the real observations, {how}:", "", *markdown_table(inference.table)]
        lines += ["", trust]
    if composition is not None:
        lines += ["", "The posterior given all of them together:", "", *markdown_table(composition.table)]
    return "\n".join(lines)


def markdown_table(table: list[JSONObject]) -> list[str]:
    """Lines of a table of posteriors."""
    names = list(table[0])
    rows = [[_cell(name, cell, digits_of(row["sd"]) + 2) for name, cell in row.items()] for row in table]
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows)]


def _cell(name: str, value: Any, digits: int) -> str:
    """A cell with so many decimals, so that a mean of 1e9 has those that its sd asks for."""
    if isinstance(value, str):
        return value
    return f"{value:.6g}" if name in (MEAN_ERROR, SD_RATIO) else fixed(value, digits)
