"""Diagnostic figures, one per file, from `metrics`; they never sample and keep Matplotlib's global state.

Plots of draws against truth take mappings of variables, as `approximator.sample` and test data give them, or
plain arrays: `plot(samples, truth, variable_keys=None, variable_names=None)`. Each returns a
`matplotlib.figure.Figure`.
"""

from matplotlib.figure import Figure

from sbi_models.diagnostics.plots.calibration_ecdf import plot_calibration_ecdf
from sbi_models.diagnostics.plots.categories import plot_confusion, plot_reliability
from sbi_models.diagnostics.plots.coverage import plot_coverage
from sbi_models.diagnostics.plots.disagreement import plot_disagreement
from sbi_models.diagnostics.plots.losses import plot_losses
from sbi_models.diagnostics.plots.pairs import plot_pairs
from sbi_models.diagnostics.plots.posterior_reference import plot_posterior_reference
from sbi_models.diagnostics.plots.predictive import plot_predictive_check
from sbi_models.diagnostics.plots.rank_histogram import plot_rank_histogram
from sbi_models.diagnostics.plots.recovery import plot_recovery
from sbi_models.diagnostics.plots.tarp import plot_tarp
from sbi_models.diagnostics.plots.verdict import plot_verdict
from sbi_models.diagnostics.plots.z_score_contraction import plot_z_score_contraction

__all__ = [
    "Figure",
    "plot_calibration_ecdf",
    "plot_confusion",
    "plot_coverage",
    "plot_disagreement",
    "plot_losses",
    "plot_pairs",
    "plot_posterior_reference",
    "plot_predictive_check",
    "plot_rank_histogram",
    "plot_recovery",
    "plot_reliability",
    "plot_tarp",
    "plot_verdict",
    "plot_z_score_contraction",
]
