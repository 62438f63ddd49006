"""Diagnostics: is the posterior accurate, calibrated, and more informative than the prior?

`metrics` turn draws and true values into numbers, `plots` turn them into figures, and `default_metrics` and `default_figures` do the
usual set of each. Matplotlib is imported at the first figure.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sbi_models.diagnostics.arviz_export import to_arviz
from sbi_models.diagnostics.default import default_figures, default_metrics
from sbi_models.diagnostics.metrics import (
    Coverage,
    EcdfBand,
    calibration_error,
    central_interval,
    energy_disagreement,
    fractional_ranks,
    jensen_shannon_divergence,
    joint_coverage,
    joint_ranks,
    log_gamma,
    marginal_coverage,
    nrmse,
    pearson_r,
    point_estimate,
    posterior_contraction,
    simultaneous_band,
    z_scores,
)
from sbi_models.diagnostics.variables import flatten_variables

if TYPE_CHECKING:
    from sbi_models.diagnostics.plots import (
        plot_calibration_ecdf,
        plot_coverage,
        plot_disagreement,
        plot_losses,
        plot_posterior_reference,
        plot_recovery,
        plot_z_score_contraction,
    )

__all__ = [
    "Coverage",
    "EcdfBand",
    "calibration_error",
    "central_interval",
    "default_figures",
    "default_metrics",
    "energy_disagreement",
    "flatten_variables",
    "fractional_ranks",
    "jensen_shannon_divergence",
    "joint_coverage",
    "joint_ranks",
    "log_gamma",
    "marginal_coverage",
    "nrmse",
    "pearson_r",
    "plot_calibration_ecdf",
    "plot_coverage",
    "plot_disagreement",
    "plot_losses",
    "plot_posterior_reference",
    "plot_recovery",
    "plot_z_score_contraction",
    "point_estimate",
    "posterior_contraction",
    "simultaneous_band",
    "to_arviz",
    "z_scores",
]


def __getattr__(name: str) -> Any:
    if name.startswith("plot_") and name in __all__:
        return getattr(import_module("sbi_models.diagnostics.plots"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
