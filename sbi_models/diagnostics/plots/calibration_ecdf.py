"""ECDF difference plot: the ECDF of ranks minus that of a uniform, with its simultaneous band."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.calibration import ecdf_counts, log_gamma_of_ranks, simultaneous_band
from sbi_models.diagnostics.metrics.checks import check_samples
from sbi_models.diagnostics.metrics.ranks import even_ranks
from sbi_models.diagnostics.plots.style import BAND, BLUE, GUIDE, RED, finish, note, panel_grid
from sbi_models.diagnostics.variables import flatten_variables


def plot_calibration_ecdf(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Figure:
    """Plot the ECDF of fractional ranks minus the uniform one for each parameter, with simultaneous bands.

    A line that leaves the band anywhere, drawn in another colour, rejects calibration at 1 - level; log gamma
    says the same as a number. Over-confident posteriors rise above 0 at the left and fall below at the right;
    biased ones lean to one side.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        level: probability of the whole band.
        seed: seed of places among ties; without ties it does not matter.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets.
        ConfigurationError: the level is not inside (0, 1).
    """
    draws, true, names = flatten_variables(samples, truth, variable_keys, variable_names)
    check_samples(draws, true, min_datasets=2)
    ranks, num_draws = even_ranks(draws, true, seed), draws.shape[1]
    band = simultaneous_band(len(true), num_draws, level)
    statistic = log_gamma_of_ranks(ranks, num_draws, level)
    gap = ecdf_counts(ranks, band.z) / len(true) - band.z[:, None]
    low, high = min((band.lower - band.z).min(), gap.min()), max((band.upper - band.z).max(), gap.max())
    room = 0.07 * (high - low)  # and above for the note
    figure, panels = panel_grid(names, x_limits=(0.0, 1.0), y_limits=(low - room, high + 3.0 * room))
    legend: dict[str, Artist] = {}
    for j, axes in enumerate(panels):
        inside = statistic[j] >= 0.0
        shade = axes.fill_between(band.z, band.lower - band.z, band.upper - band.z, **BAND)
        axes.axhline(0.0, **GUIDE)
        (line,) = axes.plot(
            [0.0, *band.z, 1.0],
            [0.0, *gap[:, j], 0.0],
            color=BLUE if inside else RED,
            linewidth=1.4,
            linestyle="-" if inside else "-.",
        )
        legend["ranks, inside the band" if inside else "ranks, leaving the band"] = line
        note(axes, f"log γ = {statistic[j]:.2f}".replace("-", "−"), x=0.96)
    legend[f"simultaneous {100 * level:g} % band"] = shade
    return finish(figure, "fractional rank of the truth", "ECDF minus uniform", legend)
