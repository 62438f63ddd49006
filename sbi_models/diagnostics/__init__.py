"""Diagnostics of posteriors: accuracy, calibration, and information beyond the prior.

`metrics` turn draws and true values into numbers, `plots` turn them into figures, `default_metrics` and
`default_figures` do the usual set of each, and `judge` gives the verdict: what is wrong, how much, how
surely. Matplotlib is imported at the first figure.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sbi_models.diagnostics import metrics
from sbi_models.diagnostics.arviz_export import to_arviz
from sbi_models.diagnostics.default import default_figures, default_metrics
from sbi_models.diagnostics.judging import MIN_DATASETS, MIN_DRAWS, judge
from sbi_models.diagnostics.metrics import *  # noqa: F403 - metrics/__init__.py lists their names
from sbi_models.diagnostics.variables import flatten_variables
from sbi_models.diagnostics.verdict import CategoryEstimate, Check, Estimate, Judgement, Verdict

if TYPE_CHECKING:
    from sbi_models.diagnostics.plots import (
        plot_calibration_ecdf,
        plot_confusion,
        plot_coverage,
        plot_disagreement,
        plot_losses,
        plot_pairs,
        plot_posterior_reference,
        plot_predictive_check,
        plot_rank_histogram,
        plot_recovery,
        plot_reliability,
        plot_tarp,
        plot_verdict,
        plot_z_score_contraction,
    )

__all__ = [
    "MIN_DATASETS",
    "MIN_DRAWS",
    "CategoryEstimate",
    "Check",
    "Estimate",
    "Judgement",
    "Verdict",
    "default_figures",
    "default_metrics",
    "flatten_variables",
    "judge",
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
    "to_arviz",
]
__all__ += metrics.__all__


def __getattr__(name: str) -> Any:
    if name.startswith("plot_") and name in __all__:
        return getattr(import_module("sbi_models.diagnostics.plots"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
