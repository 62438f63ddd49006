"""Plot of posterior z-scores against posterior contraction: bias and over-confidence against information."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sbi_models.diagnostics.metrics.contraction import posterior_contraction, z_scores
from sbi_models.diagnostics.plots.recovery import MANY_DATASETS
from sbi_models.diagnostics.plots.style import BAND, DOTS, GREEN, GUIDE, finish, note, panel_grid
from sbi_models.diagnostics.variables import flatten_variables

LOWEST_CONTRACTION = -0.5


def plot_z_score_contraction(
    samples: object,
    truth: object,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    prior_variance: object = None,
) -> Figure:
    """Plot for each parameter and data set its z-score against its posterior contraction.

    z = (mean - truth) / sd; contraction = 1 - var(posterior) / var(prior).

    Good posteriors lie at the right, between -2 and 2. Dots beyond the panel (contraction below -0.5, very
    large z) are drawn at its edge.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        prior_variance: shape (dim,), in squared raw units; by default the variance of the true values.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 data sets or 2 draws.
    """
    draws, true, names = flatten_variables(samples, truth, variable_keys, variable_names)
    z, contraction = z_scores(draws, true), posterior_contraction(draws, true, prior_variance)
    defined = np.isfinite(contraction)
    low = max(LOWEST_CONTRACTION, min(0.0, float(contraction[defined].min(initial=0.0))))
    finite = np.abs(z[np.isfinite(z)])
    high = max(4.0, 1.05 * float(np.quantile(finite, 0.995))) if finite.size else 4.0
    figure, panels = panel_grid(names, x_limits=(low - 0.04, 1.04), y_limits=(-1.06 * high, 1.3 * high))
    for j, axes in enumerate(panels):
        shade = axes.axhspan(-2.0, 2.0, **{**BAND, "color": GREEN, "alpha": 0.12})
        axes.axhline(0.0, **GUIDE)
        dots = axes.scatter(
            np.clip(contraction[:, j], low, 1.0),
            np.clip(z[:, j], -high, high),
            **DOTS,
            rasterized=len(z) > MANY_DATASETS,
        )
        if defined[:, j].any():
            note(axes, f"median {np.median(contraction[:, j]):.2f}")
        else:
            note(axes, "constant in the test data:\ncontraction not defined")
    legend = {"one data set": dots, "|z| below 2": shade}
    return finish(figure, "posterior contraction", "posterior z-score", legend)
