"""Plots of categories: confusion matrices and reliability curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.categories import confusion_matrix, reliability
from sbi_models.diagnostics.plots.style import BLUE, GUIDE, finish, note, panel_grid
from sbi_models.diagnostics.variables import Discrete, categories_of, flatten_variables

MOST_NUMBERS = 8
"""Number of categories up to which each cell has its number."""


def plot_confusion(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    discrete: Discrete | None = None,
) -> Figure:
    """Plot the mean posterior probability of each category, by the true one; the diagonal is right.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        discrete: values of the categories, see `categories_of`; None takes all values of draws and truth.

    Raises:
        DataError: the arrays do not fit, are not finite, or no parameter is categorical.
    """
    flat = flatten_variables(samples, truth, variable_keys, variable_names)
    chosen = categories_of(flat, samples, discrete, variable_keys)
    figure, panels = panel_grid([flat.names[j] for j in chosen], aspect=0.95)
    for (j, values), axes in zip(chosen.items(), panels, strict=True):
        matrix = confusion_matrix(flat.samples[..., j], flat.truth[:, j], values)
        axes.imshow(np.nan_to_num(matrix), cmap="Blues", vmin=0.0, vmax=1.0)
        axes.grid(visible=False)
        every = max(1, len(values) // MOST_NUMBERS)
        ticks = list(range(0, len(values), every))
        axes.set_xticks(ticks, [f"{values[k]:g}" for k in ticks])
        axes.set_yticks(ticks, [f"{values[k]:g}" for k in ticks])
        if len(values) <= MOST_NUMBERS:
            for (row, column), share in np.ndenumerate(matrix):
                text = "–" if np.isnan(share) else f"{share:.2f}"
                color = "white" if share > 0.6 else "black"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    return finish(figure, "mean posterior probability of", "true category", {})


def plot_reliability(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    discrete: Discrete | None = None,
    level: float = 0.95,
) -> Figure:
    """Plot how often categories are true by the probability that posteriors give them; the diagonal is right.

    Args:
        samples, truth, variable_keys, variable_names, discrete: arguments as for `plot_confusion`.
        level: coverage level of the intervals.

    Raises:
        DataError: the arrays do not fit, are not finite, or no parameter is categorical.
    """
    flat = flatten_variables(samples, truth, variable_keys, variable_names)
    chosen = categories_of(flat, samples, discrete, variable_keys)
    figure, panels = panel_grid(
        [flat.names[j] for j in chosen], x_limits=(0.0, 1.0), y_limits=(0.0, 1.0), aspect=0.95
    )
    for (j, values), axes in zip(chosen.items(), panels, strict=True):
        curve = reliability(flat.samples[..., j], flat.truth[:, j], values, level=level)
        errors = [curve.frequency - curve.lower, curve.upper - curve.frequency]
        points = axes.errorbar(
            curve.stated, curve.frequency, np.maximum(errors, 0.0), fmt="o-", color=BLUE, ms=3, lw=1
        )
        (line,) = axes.plot((0, 1), (0, 1), **GUIDE)
        note(axes, f"{int(curve.number.sum())} statements")
    legend: dict[str, Any] = {"frequency, with interval": points, "as stated": line}
    return finish(figure, "stated probability", "frequency", legend)
