"""Recovery plot: posterior point estimates and intervals against the truth."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.checks import Floats
from sbi_models.diagnostics.metrics.recovery import Estimate, central_interval, pearson_r, point_estimate
from sbi_models.diagnostics.plots.style import DOTS, GUIDE, finish, note, panel_grid
from sbi_models.diagnostics.variables import flatten_variables

MANY_DATASETS = 2000
"""Number of data sets from which marks are rasterized in vector files, to keep these small."""


def plot_recovery(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    estimate: Estimate = "mean",
    level: float = 0.95,
) -> Figure:
    """Plot posterior estimates with central intervals against the truth, with their correlation r.

    Good recovery is close to the diagonal. Intervals may be cut at the edge of the panel; dots never are.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        estimate: "mean" or "median" of the posterior.
        level: posterior probability of the bars.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: another estimate, or a level not inside (0, 1).
    """
    draws, true, names = flatten_variables(samples, truth, variable_keys, variable_names)
    middle = point_estimate(draws, estimate)
    lower, upper = central_interval(draws, level)
    r = pearson_r(middle, true)
    figure, panels = panel_grid(names, aspect=0.95)
    crowd = len(true) > MANY_DATASETS
    for j, axes in enumerate(panels):
        ends = np.stack([np.stack([true[:, j], end[:, j]], axis=-1) for end in (lower, upper)], axis=1)
        bars = LineCollection(list(ends), color=DOTS["color"], alpha=0.22, linewidth=0.9, rasterized=crowd)
        axes.add_collection(bars, autolim=False)
        dots = axes.scatter(true[:, j], middle[:, j], **DOTS, rasterized=crowd)
        (line,) = axes.plot((0, 1), (0, 1), transform=axes.transAxes, **GUIDE)
        _square(axes, true[:, j], middle[:, j], lower[:, j], upper[:, j])
        note(axes, f"r = {r[j]:.3f}" if np.isfinite(r[j]) else "r not defined: constant")
    legend = {
        f"posterior {estimate}": dots,
        f"central {100 * level:g} % interval": bars,
        "equal to the truth": line,
    }
    return finish(figure, "true value", f"posterior {estimate}", legend)


def _square(axes: Axes, true: Floats, middle: Floats, lower: Floats, upper: Floats) -> None:
    """Set equal limits on both axes, around all dots and most bars, with the diagonal between corners."""
    low = min(true.min(), middle.min(), np.quantile(lower, 0.1))
    high = max(true.max(), middle.max(), np.quantile(upper, 0.9))
    constant = high - low <= 1e-9 * abs(high)  # up to rounding
    margin = (0.1 * abs(high) or 1.0) if constant else 0.05 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(low - margin, high + margin)
