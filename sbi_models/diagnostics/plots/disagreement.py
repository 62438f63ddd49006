"""Plot of the disagreement between posteriors of the same data set, against a reference."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite
from sbi_models.diagnostics.plots.style import BLUE, GREY, RED, finish, note, panel_grid
from sbi_models.errors import DataError

MANY = 30
"""Number of observations above which they are plotted as a distribution, not as lines."""

SHOWN = 0.99
"""Share of the reference within the axis; the few far out would squeeze the others into one bar."""


def plot_disagreement(
    disagreement: object, reference: object = None, *, label: str = "disagreement between members"
) -> Figure:
    """Plot the distribution of the disagreement over data sets.

    With a reference, that is the distribution of the reference with the observations in it.

    An observation far to the right of the reference, test simulations, is one that the members have not
    learned, or that is unlike any simulation.

    Args:
        disagreement: one number a data set, shape (num_datasets,), as `workflow.disagreement` gives it.
        reference: the same for test simulations, shape (n_references,).
        label: label of the axis.

    Raises:
        DataError: for other shapes, or numbers that are not finite.
    """
    values = _checked("disagreement", disagreement)
    usual = None if reference is None else _checked("reference", reference)
    figure, (axes,) = panel_grid([""], aspect=0.7)
    figure.set_size_inches(5.2, 3.2)
    least, most = float(values.min()), float(values.max())
    if usual is not None:
        least, most = min(least, float(usual.min())), max(most, float(np.quantile(usual, SHOWN)))
    edges = np.linspace(min(0.0, least), most * 1.02 + 1e-12, 31)
    legend: dict[str, Artist] = {}
    if usual is not None:
        beyond = float(np.mean(usual > edges[-1]))
        name = f"reference, {beyond:.1%} of it further right" if beyond else "reference"
        legend[name] = axes.stairs(
            *np.histogram(usual, edges, density=True), fill=True, color=GREY, alpha=0.5
        )
        level = float(np.quantile(usual, 0.95))
        note(axes, f"{np.mean(values > level):.0%} above the 95 % quantile of the reference", x=0.98)
    if usual is None or len(values) > MANY:
        legend["data sets"] = axes.stairs(
            *np.histogram(values, edges, density=True), fill=True, color=BLUE, alpha=0.5
        )
    else:
        for value in values:
            legend["observations"] = axes.axvline(value, color=RED, linewidth=1.2)
    if usual is None:
        note(axes, f"median {np.median(values):.3g}, largest {values.max():.3g}", x=0.98)
    return finish(figure, label, "density", legend)


def _checked(name: str, value: object) -> Floats:
    values = as_floats(name, value)
    if values.ndim != 1 or not values.size:
        raise DataError(
            f"Expected {name} of shape (num_datasets,), got {values.shape}. Pass what "
            "workflow.disagreement(conditions) returns."
        )
    check_finite(name, values)
    return values
