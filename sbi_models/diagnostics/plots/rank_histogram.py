"""Rank histograms of simulation-based calibration."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.sbc import rank_histogram
from sbi_models.diagnostics.plots.style import BAND, BLUE, GUIDE, finish, note, panel_grid
from sbi_models.diagnostics.variables import flatten_variables


def plot_rank_histogram(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    bins: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Figure:
    """Plot for each parameter the histogram of ranks of the truth, with the interval of a right posterior.

    Flat is right; a valley is over-confident, a hill under-confident, a slope biased. p is that of the
    simultaneous ECDF band, which needs no bins.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        bins, level, seed: arguments of `rank_histogram`.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: bins or level out of range.
    """
    draws, true, names = flatten_variables(samples, truth, variable_keys, variable_names)
    result = rank_histogram(draws, true, bins, level=level, seed=seed)
    high = 1.25 * max(float(result.counts.max()), float(result.upper.max()))
    figure, panels = panel_grid(names, x_limits=(0.0, 1.0), y_limits=(0.0, high), aspect=0.7)
    for j, axes in enumerate(panels):
        bars = axes.stairs(result.counts[:, j], result.edges, fill=True, color=BLUE, alpha=0.55)
        shade = axes.stairs(result.upper, result.edges, baseline=result.lower, fill=True, **BAND)
        line = axes.stairs(result.expected, result.edges, baseline=None, **GUIDE)
        p_value = result.p_values_ecdf[j]
        note(axes, "p < 0.001" if p_value < 0.001 else f"p = {np.round(p_value, 3):g}", x=0.96)
    legend = {"ranks": bars, "right on average": line, f"{100 * level:g} % of each bin if right": shade}
    return finish(figure, "fractional rank of the truth", "data sets", legend)
