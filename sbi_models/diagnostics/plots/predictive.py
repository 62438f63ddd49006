"""Posterior predictive plot: statistics of observed data among those of predicted data."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.predictive import Statistic, predictive_check
from sbi_models.diagnostics.plots.style import BLACK, BLUE, RED, TITLE, finish, note, panel_grid
from sbi_models.errors import DataError

MOST_ROWS = 12


def plot_predictive_check(
    predictive: object,
    observed: object,
    statistics: Mapping[str, Statistic] | None = None,
    *,
    data_set_names: Sequence[str] | None = None,
) -> Figure:
    """Plot predicted and observed statistics for each data set (row) and statistic (column).

    Args:
        predictive, observed, statistics: arguments of `predictive_check`; at most 12 data sets.
        data_set_names: name of each data set.

    Raises:
        DataError: arrays that do not fit or are not finite, or more data sets than can be read.
    """
    check = predictive_check(predictive, observed, statistics)
    rows, columns = check.p_values.shape
    if rows > MOST_ROWS:
        raise DataError(
            f"Expected at most {MOST_ROWS} data sets to draw, got {rows}. Choose some, and use "
            "predictive_check for all."
        )
    labels = [f"data set {i + 1}" for i in range(rows)] if data_set_names is None else list(data_set_names)
    if len(labels) != rows:
        raise DataError(f"Expected {rows} data_set_names, got {len(labels)}. Name every data set, in order.")
    titles = [*check.names, *[""] * (columns * (rows - 1))]
    figure, panels = panel_grid(titles, aspect=0.6, columns=columns, width=2.6 if columns > 1 else 3.6)
    legend: dict[str, Artist] = {}
    for i, axes in enumerate(panels):
        row, column = divmod(i, columns)
        counts, edges = np.histogram(check.predictive[row, :, column], bins=30)
        legend["predicted data"] = axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.5)
        legend["observed data"] = axes.axvline(check.observed[row, column], color=RED, linewidth=1.6)
        axes.set_ylim(0, 1.25 * counts.max())
        note(axes, f"p = {check.p_values[row, column]:.2g}", x=0.96)
        if column == 0:
            axes.set_ylabel(labels[row], fontsize=TITLE, color=BLACK)
        axes.tick_params(labelleft=False)
        axes.locator_params(axis="x", nbins=4)
    return finish(figure, "value of the statistic", "", legend)
