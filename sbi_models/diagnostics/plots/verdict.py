"""Verdict plot: bias and width factor of every parameter and of all jointly, with intervals."""

from math import isfinite

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sbi_models.diagnostics.plots.style import (
    BLUE,
    GREY,
    GUIDE,
    LABEL,
    RED,
    TEXT,
    DiagnosticFigure,
    dress,
    finish,
)
from sbi_models.diagnostics.verdict import CALIBRATED, Estimate, Judgement, Verdict

ROW = 0.24
"""Height of a row in inches."""


def plot_verdict(verdict: Verdict) -> Figure:
    """Plot width factor and bias with intervals, one row per parameter.

    Flaws are red squares, what is no more than the prior is grey.

    Args:
        verdict: verdict of `judge` or `workflow.verdict`.
    """
    rows = [*verdict.parameters, *([] if verdict.joint is None else [verdict.joint])]
    figure = DiagnosticFigure(figsize=(8.0, ROW * len(rows) + 1.5), dpi=110, layout="constrained")
    left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
    dress(left, "factor to multiply sds by")
    dress(right, "bias in posterior sds")
    for i, row in enumerate(rows):
        _mark(left, i, row.width_factor, row)
        _mark(right, i, row.bias, row)
        right.annotate(
            row.label,
            (1.02, i),
            xycoords=("axes fraction", "data"),
            fontsize=TEXT,
            va="center",
            color=_color(row),
        )
    left.axvline(1.0, **GUIDE)
    right.axvline(0.0, **GUIDE)
    for axes in (left, right):
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.set_yticks(range(len(rows)), [row.name for row in rows] if axes is left else [""] * len(rows))
    figure.suptitle(verdict.sentence, fontsize=LABEL, wrap=True)
    return finish(figure, f"estimates with {100 * verdict.level:g} % intervals", "", {})


def _mark(axes: Axes, i: int, estimate: Estimate, row: Judgement) -> None:
    if not isfinite(estimate.value):
        return
    axes.plot((estimate.low, estimate.high), (i, i), color=_color(row), linewidth=1.6)
    axes.plot(
        estimate.value, i, "o" if not row.flaws else "D", color=_color(row), markersize=4.5, linestyle="none"
    )


def _color(row: Judgement) -> str:
    return RED if row.flaws else BLUE if row.label == CALIBRATED else GREY
