"""Diagnostic metrics: NumPy arrays in, NumPy arrays out, one family per file, without plots or sampling.

Most metrics take `samples`, posterior draws of shape (num_datasets, num_samples, dim), and `truth`, true
values of shape (num_datasets, dim), both in the raw space of the user; two-sample metrics take two sets of
draws (n, dim) and (m, dim).
"""

from sbi_models.diagnostics.metrics.c2st import c2st, c2st_of_each
from sbi_models.diagnostics.metrics.calibration import (
    EcdfBand,
    calibration_error,
    log_gamma,
    simultaneous_band,
)
from sbi_models.diagnostics.metrics.categories import (
    CategoryTest,
    Reliability,
    brier_score,
    category_probabilities,
    category_tests,
    confusion_matrix,
    reliability,
)
from sbi_models.diagnostics.metrics.classifiers import Classifier
from sbi_models.diagnostics.metrics.contraction import posterior_contraction, z_scores
from sbi_models.diagnostics.metrics.convergence import effective_draws, rank_normalized_r_hat
from sbi_models.diagnostics.metrics.coverage import Coverage, joint_coverage, joint_ranks, marginal_coverage
from sbi_models.diagnostics.metrics.disagreement import energy_disagreement, jensen_shannon_divergence
from sbi_models.diagnostics.metrics.energy_score import energy_score
from sbi_models.diagnostics.metrics.importance import (
    SmoothedWeights,
    effective_sample_share,
    largest_weight_share,
    pareto_smoothed,
)
from sbi_models.diagnostics.metrics.information import information
from sbi_models.diagnostics.metrics.lc2st import LocalTest, local_c2st
from sbi_models.diagnostics.metrics.log_score import LogScore, log_score
from sbi_models.diagnostics.metrics.mmd import mmd_squared
from sbi_models.diagnostics.metrics.predictive import PredictiveCheck, predictive_check
from sbi_models.diagnostics.metrics.ranks import fractional_ranks, random_ranks
from sbi_models.diagnostics.metrics.recovery import central_interval, nrmse, pearson_r, point_estimate
from sbi_models.diagnostics.metrics.sbc import RankHistogram, rank_histogram
from sbi_models.diagnostics.metrics.tarp import Tarp, tarp, tarp_ranks

__all__ = [
    "CategoryTest",
    "Classifier",
    "Coverage",
    "EcdfBand",
    "LocalTest",
    "LogScore",
    "PredictiveCheck",
    "RankHistogram",
    "Reliability",
    "SmoothedWeights",
    "Tarp",
    "brier_score",
    "c2st",
    "c2st_of_each",
    "calibration_error",
    "category_probabilities",
    "category_tests",
    "central_interval",
    "confusion_matrix",
    "effective_draws",
    "effective_sample_share",
    "energy_disagreement",
    "energy_score",
    "fractional_ranks",
    "information",
    "jensen_shannon_divergence",
    "joint_coverage",
    "joint_ranks",
    "largest_weight_share",
    "local_c2st",
    "log_gamma",
    "log_score",
    "marginal_coverage",
    "mmd_squared",
    "nrmse",
    "pareto_smoothed",
    "pearson_r",
    "point_estimate",
    "posterior_contraction",
    "predictive_check",
    "random_ranks",
    "rank_histogram",
    "rank_normalized_r_hat",
    "reliability",
    "simultaneous_band",
    "tarp",
    "tarp_ranks",
    "z_scores",
]
