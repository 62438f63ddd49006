"""Diagnostics of posteriors: accuracy, calibration, and information beyond the prior.

`metrics` turn draws and true values into numbers, `plots` turn them into figures, `default_metrics` and
`default_figures` do the usual set of each, and `judge` gives the verdict: what is wrong, how much, how
surely. Matplotlib is imported at the first figure.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sbi_models.diagnostics.arviz_export import to_arviz
from sbi_models.diagnostics.default import default_figures, default_metrics
from sbi_models.diagnostics.judging import MIN_DATASETS, MIN_DRAWS, judge
from sbi_models.diagnostics.metrics import (
    Classifier,
    Coverage,
    EcdfBand,
    LocalTest,
    LogScore,
    PredictiveCheck,
    RankHistogram,
    SmoothedWeights,
    Tarp,
    c2st,
    c2st_of_each,
    calibration_error,
    central_interval,
    effective_sample_share,
    energy_disagreement,
    energy_score,
    fractional_ranks,
    information,
    jensen_shannon_divergence,
    joint_coverage,
    joint_ranks,
    largest_weight_share,
    local_c2st,
    log_gamma,
    log_score,
    marginal_coverage,
    mmd_squared,
    nrmse,
    pareto_smoothed,
    pearson_r,
    point_estimate,
    posterior_contraction,
    predictive_check,
    random_ranks,
    rank_histogram,
    simultaneous_band,
    tarp,
    tarp_ranks,
    z_scores,
)
from sbi_models.diagnostics.variables import flatten_variables
from sbi_models.diagnostics.verdict import Check, Estimate, Judgement, Verdict

if TYPE_CHECKING:
    from sbi_models.diagnostics.plots import (
        plot_calibration_ecdf,
        plot_coverage,
        plot_disagreement,
        plot_losses,
        plot_pairs,
        plot_posterior_reference,
        plot_predictive_check,
        plot_rank_histogram,
        plot_recovery,
        plot_tarp,
        plot_verdict,
        plot_z_score_contraction,
    )

__all__ = [
    "MIN_DATASETS",
    "MIN_DRAWS",
    "Check",
    "Classifier",
    "Coverage",
    "EcdfBand",
    "Estimate",
    "Judgement",
    "LocalTest",
    "LogScore",
    "PredictiveCheck",
    "RankHistogram",
    "SmoothedWeights",
    "Tarp",
    "Verdict",
    "c2st",
    "c2st_of_each",
    "calibration_error",
    "central_interval",
    "default_figures",
    "default_metrics",
    "effective_sample_share",
    "energy_disagreement",
    "energy_score",
    "flatten_variables",
    "fractional_ranks",
    "information",
    "jensen_shannon_divergence",
    "joint_coverage",
    "joint_ranks",
    "judge",
    "largest_weight_share",
    "local_c2st",
    "log_gamma",
    "log_score",
    "marginal_coverage",
    "mmd_squared",
    "nrmse",
    "pareto_smoothed",
    "pearson_r",
    "plot_calibration_ecdf",
    "plot_coverage",
    "plot_disagreement",
    "plot_losses",
    "plot_pairs",
    "plot_posterior_reference",
    "plot_predictive_check",
    "plot_rank_histogram",
    "plot_recovery",
    "plot_tarp",
    "plot_verdict",
    "plot_z_score_contraction",
    "point_estimate",
    "posterior_contraction",
    "predictive_check",
    "random_ranks",
    "rank_histogram",
    "simultaneous_band",
    "tarp",
    "tarp_ranks",
    "to_arviz",
    "z_scores",
]


def __getattr__(name: str) -> Any:
    if name.startswith("plot_") and name in __all__:
        return getattr(import_module("sbi_models.diagnostics.plots"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
