"""Diagnostic numbers: NumPy arrays in, NumPy arrays out, one family a file; nothing here plots or samples.

Every metric takes `samples`, posterior draws of shape (n_datasets, num_samples, dim), and `truth`, true values of shape
(n_datasets, dim), both in the raw space of the user.
"""

from sbi_models.diagnostics.metrics.calibration import EcdfBand, calibration_error, log_gamma, simultaneous_band
from sbi_models.diagnostics.metrics.contraction import posterior_contraction, z_scores
from sbi_models.diagnostics.metrics.coverage import Coverage, joint_coverage, joint_ranks, marginal_coverage
from sbi_models.diagnostics.metrics.disagreement import energy_disagreement, jensen_shannon_divergence
from sbi_models.diagnostics.metrics.ranks import fractional_ranks
from sbi_models.diagnostics.metrics.recovery import central_interval, nrmse, pearson_r, point_estimate

__all__ = [
    "Coverage",
    "EcdfBand",
    "calibration_error",
    "central_interval",
    "energy_disagreement",
    "fractional_ranks",
    "jensen_shannon_divergence",
    "joint_coverage",
    "joint_ranks",
    "log_gamma",
    "marginal_coverage",
    "nrmse",
    "pearson_r",
    "point_estimate",
    "posterior_contraction",
    "simultaneous_band",
    "z_scores",
]
