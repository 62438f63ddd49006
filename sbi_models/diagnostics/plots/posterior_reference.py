"""Plot of amortized posterior draws against the exact density, data set by data set."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite
from sbi_models.diagnostics.plots.style import BLACK, BLUE, GUIDE, RED, TITLE, finish, panel_grid
from sbi_models.errors import DataError


def plot_posterior_reference(
    samples: object,
    grid: object,
    density: object,
    truth: object = None,
    *,
    variable_names: Sequence[str] | None = None,
    data_set_names: Sequence[str] | None = None,
    samples_label: str = "amortized posterior",
    reference_label: str = "exact posterior",
    truth_label: str = "true value",
) -> Figure:
    """Plot a histogram of draws with the exact density for each data set (row) and quantity (column).

    Histograms count every draw: bars and curve have the same unit, and both integrate to 1 unless draws lie
    beyond the panel.

    Args:
        samples: posterior draws, shape (num_datasets, num_samples, n_quantities), raw space.
        grid: points of the exact density, increasing, shape (num_datasets, n_quantities, n_points), or
            fewer leading axes if it is the same for all, raw space.
        density: exact density there, same shape as grid, in 1 / unit of the quantity.
        truth: a value to mark with a vertical line, true or observed, shape (num_datasets, n_quantities) or
            (n_quantities,); NaN marks nothing.
        variable_names: name of each quantity, with its unit if it has one.
        data_set_names: name of each data set.
        samples_label, reference_label, truth_label: labels of the legend.

    Raises:
        DataError: shapes that do not fit, values that are not finite, a grid that does not increase, a
            negative density.
    """
    draws = as_floats("samples", samples)
    if draws.ndim != 3 or 0 in draws.shape:
        raise DataError(
            "Expected samples of shape (num_datasets, num_samples, n_quantities), got "
            f"{draws.shape}. Add the missing axes."
        )
    rows, _, columns = draws.shape
    points, heights = _reference(grid, density, rows, columns)
    marks = None if truth is None else _spread("truth", truth, (rows, columns))
    check_finite("samples", draws)
    quantities = _labels("variable_names", variable_names, columns, "quantity")
    datasets = _labels("data_set_names", data_set_names, rows, "data set")
    figure, panels = _panels(datasets, quantities)
    legend: dict[str, Artist] = {}
    for i, axes in enumerate(panels):
        row, column = divmod(i, columns)
        legend[samples_label] = _histogram(axes, draws[row, :, column], points[row, column])
        (legend[reference_label],) = axes.plot(
            points[row, column], heights[row, column], color=RED, linewidth=1.5
        )
        if marks is not None:
            mark = marks[row, column]
            if not np.isnan(mark):
                legend[truth_label] = axes.axvline(mark, **GUIDE)
        axes.set_ylim(bottom=0.0)
        axes.grid(visible=False)
        axes.locator_params(axis="x", nbins=5)
    _align(panels, columns)
    return finish(figure, quantities[0] if columns == 1 else "", "posterior density", legend)


def _panels(datasets: list[str], quantities: list[str]) -> tuple[Figure, list[Axes]]:
    """Panels with a row per data set and a column per quantity, or a grid if there is one of either."""
    if len(quantities) == 1:
        return panel_grid(datasets, aspect=0.75)
    if len(datasets) == 1:
        return panel_grid(quantities, aspect=0.75)
    titles = quantities + [""] * (len(quantities) * (len(datasets) - 1))
    figure, panels = panel_grid(titles, aspect=0.5, columns=len(quantities), width=3.2)
    for name, axes in zip(datasets, panels[:: len(quantities)], strict=True):
        axes.set_ylabel(fill(name, 22), fontsize=TITLE, color=BLACK)
    return figure, panels


def _align(panels: list[Axes], columns: int) -> None:
    """Set the same limits down each column, so that data sets can be compared."""
    if columns == 1 or columns == len(panels):
        return
    for column in range(columns):
        limits = np.array([axes.get_xlim() for axes in panels[column::columns]])
        for axes in panels[column::columns]:
            axes.set_xlim(limits[:, 0].min(), limits[:, 1].max())


def _histogram(axes: Axes, draws: Floats, points: Floats) -> Artist:
    """Bars over the range of the grid and of nearly all draws, as a density over all draws."""
    low, high = min(points[0], np.quantile(draws, 0.001)), max(points[-1], np.quantile(draws, 0.999))
    iqr = float(np.subtract(*np.quantile(draws, [0.75, 0.25])))
    width = 2.0 * iqr / len(draws) ** (1 / 3) or (high - low) / 40  # Freedman and Diaconis (1981)
    edges = np.linspace(low, high, int(np.clip((high - low) / width, 12, 60)) + 1)
    counts, _ = np.histogram(draws, edges)
    return axes.stairs(
        counts / (len(draws) * np.diff(edges)),
        edges,
        fill=True,
        color=BLUE,
        alpha=0.45,
        edgecolor=BLACK,
        linewidth=0,
    )


def _reference(grid: object, density: object, rows: int, columns: int) -> tuple[Floats, Floats]:
    points, heights = as_floats("grid", grid), as_floats("density", density)
    if points.ndim < 1 or heights.ndim < 1 or points.shape[-1] != heights.shape[-1] or points.shape[-1] < 2:
        raise DataError(
            "Expected grid and density with the same number of points, 2 or more, on the last axis, got "
            f"shapes {points.shape} and {heights.shape}. Evaluate the density on the grid."
        )
    shape = (rows, columns, points.shape[-1])
    points, heights = _spread("grid", points, shape), _spread("density", heights, shape)
    check_finite("grid", points)
    check_finite("density", heights)
    if np.any(np.diff(points, axis=-1) <= 0.0):
        raise DataError(
            "Expected a grid that increases along its last axis, got one that does not. Sort it, "
            "and the density with it."
        )
    if np.any(heights < 0.0):
        raise DataError(
            f"Expected a density of 0 or more, got {heights.min()}. Pass the density, not its logarithm."
        )
    return points, heights


def _spread(name: str, values: object, shape: tuple[int, ...]) -> Floats:
    array = as_floats(name, values)
    try:
        full = np.broadcast_to(array, shape)
    except ValueError as error:
        raise DataError(
            f"Expected {name} of shape {shape}, got {array.shape}. Give one for each data set and quantity."
        ) from error
    return full


def _labels(name: str, given: Sequence[str] | None, count: int, word: str) -> list[str]:
    labels = [f"{word} {i + 1}" for i in range(count)] if given is None else list(given)
    if len(labels) != count:
        raise DataError(
            f"Expected {count} {name}, got {len(labels)}: {', '.join(map(str, labels))}. Name "
            f"every {word}, in order."
        )
    return labels
