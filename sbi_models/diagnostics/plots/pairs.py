"""Pair plot of the joint posterior of one data set, with the prior and the truth."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite
from sbi_models.diagnostics.plots.style import BLACK, BLUE, GREY, LABEL, RED, DiagnosticFigure, dress, finish
from sbi_models.errors import DataError, suggest

MOST = 12
"""Number of parameters that are legible in one figure."""

LONG = 14
"""Number of characters after which a name is wrapped."""

DENSITY = LinearSegmentedColormap.from_list("posterior", ["#FFFFFF", "#9CC9E3", BLUE, "#003A5D"])


def plot_pairs(
    samples: object,
    truth: object = None,
    prior: object = None,
    variable_names: Sequence[str] | None = None,
    *,
    parameters: Sequence[str] | None = None,
) -> Figure:
    """Plot the marginals on the diagonal and the joint densities of all pairs below it, for one data set.

    Args:
        samples: posterior draws of one data set, shape (S, dim), raw space.
        truth: true values to mark, shape (dim,), raw space.
        prior: draws of the prior, shape (m, dim), raw space: grey outlines and dots.
        variable_names: a name for every parameter, with its unit if it has one.
        parameters: names of those to draw, at most 12; by default all.

    Raises:
        DataError: arrays that do not fit or are not finite, unknown parameters, or more than can be read.
    """
    draws = as_floats("samples", samples)
    if draws.ndim != 2 or draws.shape[0] < 2 or not draws.shape[1]:
        raise DataError(
            "Expected samples of one data set, shape (S, dim) with 2 draws or more, got "
            f"{draws.shape}. Choose a data set."
        )
    dim = draws.shape[1]
    marks = None if truth is None else _fitting("truth", truth, (dim,))
    of_prior = (
        None if prior is None else _fitting("prior", prior, (len(np.atleast_1d(np.asarray(prior))), dim))
    )
    check_finite("samples", draws)
    names = [f"theta_{j}" for j in range(dim)] if variable_names is None else list(variable_names)
    if len(names) != dim:
        raise DataError(f"Expected {dim} variable_names, got {len(names)}. Name every parameter, in order.")
    chosen = _chosen(names, parameters)
    number = len(chosen)
    size = max(1.25, 2.4 - 0.12 * number)
    figure = DiagnosticFigure(
        figsize=(size * number + 0.6, size * number + 0.9), dpi=110, layout="constrained"
    )
    grid = figure.add_gridspec(number, number)
    limits = [
        _limits(
            draws[:, j], None if of_prior is None else of_prior[:, j], None if marks is None else marks[j]
        )
        for j in chosen
    ]
    legend: dict[str, Artist] = {}
    for row in range(number):
        for column in range(row + 1):
            axes = figure.add_subplot(grid[row, column])
            last, first = row == number - 1, column == 0
            dress(axes, labelbottom=last, labelleft=first and row > 0)
            axes.locator_params(nbins=3)
            axes.tick_params(axis="x", labelrotation=45)
            axes.set_xlim(limits[column])
            j, k = chosen[column], chosen[row]
            if row == column:
                _marginal(
                    axes, draws[:, j], None if of_prior is None else of_prior[:, j], limits[row], legend
                )
            else:
                axes.set_ylim(limits[row])
                _joint(
                    axes,
                    draws[:, [j, k]],
                    None if of_prior is None else of_prior[:, [j, k]],
                    (limits[column], limits[row]),
                )
            if marks is not None:
                _mark(axes, marks[j], marks[k] if row != column else None, legend)
            if last:
                axes.set_xlabel(fill(names[j], LONG), fontsize=LABEL, color=BLACK)
            if first and row > 0:
                axes.set_ylabel(fill(names[k], LONG), fontsize=LABEL, color=BLACK)
    return finish(figure, "", "", legend)


def _marginal(
    axes: Axes, draws: Floats, prior: Floats | None, limits: tuple[float, float], legend: dict[str, Artist]
) -> None:
    edges = np.linspace(*limits, 41)
    legend["posterior"] = axes.stairs(
        *np.histogram(draws, edges, density=True), fill=True, color=BLUE, alpha=0.6
    )
    if prior is not None:
        heights = np.histogram(prior, edges)[0] / (len(prior) * (edges[1] - edges[0]))
        legend["prior"] = axes.stairs(heights, edges, color=GREY, linewidth=1.2)
    axes.set_yticks([])


def _joint(
    axes: Axes, draws: Floats, prior: Floats | None, limits: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    axes.grid(visible=False)
    counts, x, y = np.histogram2d(draws[:, 0], draws[:, 1], bins=30, range=limits)
    axes.pcolormesh(x, y, counts.T, cmap=DENSITY, rasterized=True)
    if prior is not None:
        axes.scatter(
            prior[:300, 0], prior[:300, 1], s=2, color=GREY, alpha=0.5, linewidths=0, rasterized=True
        )


def _mark(axes: Axes, x: float, y: float | None, legend: dict[str, Artist]) -> None:
    legend["true value"] = axes.axvline(x, color=RED, linewidth=1.0)
    if y is not None:
        axes.axhline(y, color=RED, linewidth=1.0)
        axes.plot(x, y, "s", color=RED, markersize=3.5)


def _limits(draws: Floats, prior: Floats | None, mark: float | None) -> tuple[float, float]:
    """Limits around nearly all draws, those of the prior, and the truth."""
    parts = [np.quantile(part, [0.002, 0.998]) for part in (draws, prior) if part is not None]
    ends = np.concatenate([*parts, [] if mark is None else [mark]])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _chosen(names: list[str], parameters: Sequence[str] | None) -> list[int]:
    for name in parameters or ():
        if name not in names:
            raise DataError(f"Unknown parameter {name!r}. {suggest(str(name), names)}")
    chosen = list(range(len(names))) if parameters is None else [names.index(name) for name in parameters]
    if not 1 <= len(chosen) <= MOST:
        raise DataError(
            f"Expected 1 to {MOST} parameters to draw in pairs, got {len(chosen)}. Choose some: "
            f"parameters={names[:3]!r}."
        )
    return chosen


def _fitting(name: str, values: object, shape: tuple[int, ...]) -> Floats:
    array = as_floats(name, values)
    if array.shape != shape:
        raise DataError(
            f"Expected {name} of shape {shape if name == 'truth' else ('m', shape[-1])}, got {array.shape}."
        )
    check_finite(name, np.atleast_1d(array))
    return array
