"""TARP plot: expected coverage of balls around random points."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.tarp import tarp
from sbi_models.diagnostics.plots.style import BAND, BLUE, GREY, GUIDE, LINE, RED, finish, note, panel_grid
from sbi_models.diagnostics.variables import flatten_variables


def plot_tarp(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    references: object = None,
    level: float = 0.95,
    seed: int = 0,
) -> Figure:
    """Plot the coverage of TARP regions against their credibility, with the simultaneous band.

    Left of the middle above and right of it below the diagonal, an S, is over-confident; its mirror image is
    cautious; one side is biased.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        references, level, seed: arguments of `tarp`.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: the level is not inside (0, 1).
    """
    draws, true, names = flatten_variables(samples, truth, variable_keys, variable_names)
    result = tarp(draws, true, references, level=level, seed=seed)
    title = names[0] if len(names) == 1 else "all parameters jointly"
    figure, (axes,) = panel_grid([title], x_limits=(0.0, 1.0), y_limits=(0.0, 1.0), aspect=1.0)
    shade = axes.fill_between(result.levels, result.lower, result.upper, **BAND)
    (diagonal,) = axes.plot((0, 1), (0, 1), **GUIDE)
    inside = result.p_value > 1.0 - level
    (line,) = axes.plot(
        [0.0, *result.levels, 1.0], [0.0, *result.observed, 1.0], **{**LINE, "color": BLUE if inside else RED}
    )
    note(axes, "p < 0.001" if result.p_value < 0.001 else f"p = {result.p_value:.3f}")
    note(axes, f"{len(true)} data sets", x=0.96, y=0.04, color=GREY)
    legend = {"observed": line, f"simultaneous {100 * level:g} % band": shade, "as stated": diagonal}
    return finish(figure, "credibility of the region", "share of data sets covered", legend)
