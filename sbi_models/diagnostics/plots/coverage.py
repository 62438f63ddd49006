"""Coverage plot of credible intervals and joint regions."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.checks import check_level
from sbi_models.diagnostics.metrics.coverage import joint_coverage, marginal_coverage
from sbi_models.diagnostics.plots.style import (
    BAND,
    BLUE,
    GREY,
    GUIDE,
    LINE,
    MANY_PANELS,
    finish,
    note,
    panel_grid,
)
from sbi_models.diagnostics.variables import flatten_variables

QUARTERS, HALVES = (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.5, 1.0)


def plot_coverage(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    joint: bool = True,
    band: float = 0.95,
) -> Figure:
    """Plot the coverage of credible regions against their level, for each parameter and jointly.

    Below the diagonal is over-confident, above it cautious. The ribbon is the pointwise Beta interval of the
    true coverage.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        joint: a last panel for all parameters together; it takes 2 parameters and more draws than dim + 1,
            and is left out else.
        band: probability of the ribbon at each level.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets or 2 draws.
        ConfigurationError: the band is not inside (0, 1).
    """
    draws, true, names = flatten_variables(samples, truth, variable_keys, variable_names)
    marginal = marginal_coverage(draws, true, band=check_level(band))
    curves = [
        (marginal.levels, *(part[:, j] for part in (marginal.observed, marginal.lower, marginal.upper)))
        for j in range(len(names))
    ]
    if joint and len(names) > 1 and draws.shape[1] > len(names) + 1:
        whole = joint_coverage(draws, true, band=band)
        curves.append((whole.levels, whole.observed[:, 0], whole.lower[:, 0], whole.upper[:, 0]))
        names = [*names, "all parameters jointly"]
    figure, panels = panel_grid(names, x_limits=(0.0, 1.0), y_limits=(0.0, 1.0), aspect=1.0)
    ticks = QUARTERS if len(panels) <= MANY_PANELS else HALVES
    for axes, (levels, observed, lower, upper) in zip(panels, curves, strict=True):
        ribbon = axes.fill_between(levels, lower, upper, **{**BAND, "color": BLUE})
        (diagonal,) = axes.plot((0, 1), (0, 1), **GUIDE)
        (line,) = axes.plot(levels, observed, **LINE)
        axes.set(xticks=ticks, yticks=ticks)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
    note(panels[0], "cautious", color=GREY)
    note(panels[0], "over-confident", x=0.96, y=0.04, color=GREY)
    legend = {
        "observed coverage": line,
        f"pointwise {100 * band:g} % interval": ribbon,
        "as stated": diagonal,
    }
    return finish(figure, "credible level", "share of data sets covered", legend)
