"""Report on the posterior draws of one data set from a learned likelihood."""

from dataclasses import dataclass, replace

import numpy as np

from sbi_models.workflows.resampling import FEWEST_EFFECTIVE, DrawsReport

_R_HAT = 1.05
_MOST_DIVERGENT, _MOST_UNMOVED = 0.05, 0.05
_MOST_OUTSIDE, _MOST_CUT = 0.05, 0.02


@dataclass(frozen=True, kw_only=True)
class PosteriorReport(DrawsReport):
    """Report on the posterior draws of one data set, by importance weights or Markov chains.

    Attributes:
        method: "importance" or "mcmc".
        effective_draws: number of independent draws that those made are worth; of all chains, or by weights.
        log_evidence: log p(x) under the prior, in nats.
        outside_reach: share of the draws outside of the range of the parameters that were simulated.
        conditions_outside: share of the elements whose conditions lie outside of the simulated range.
        pareto_k: shape of the tail of importance weights, of the proposal if there was one, else None.
        r_hat: rank-normalized R-hat between independent groups of chains; None for weights.
        acceptance: mean acceptance of the chains' moves; None for weights.
        divergent: share of divergent trajectories; None for weights.
        cut: share of points half an sd from the draws that lie outside of the support of the simulated
            parameters, where there is no likelihood; None for weights.
        unmoved: share of chains that never left their place; None for weights.
        warnings: reasons for doubt, in words.
    """

    method: str
    log_evidence: float
    outside_reach: float
    conditions_outside: float = 0.0
    pareto_k: float | None = None
    r_hat: float | None = None
    acceptance: float | None = None
    divergent: float | None = None
    cut: float | None = None
    unmoved: float | None = None


def judged(report: PosteriorReport) -> PosteriorReport:
    """The report with its warnings."""
    return replace(report, warnings=tuple(_doubts(report)))


def _doubts(report: PosteriorReport) -> list[str]:
    doubts = []
    if not np.isfinite(report.log_evidence):
        return [
            "The likelihood is zero at all draws of the prior: the chains have not reached the posterior. "
            "Pass a prior that overlaps with the parameters that were simulated."
        ]
    if report.r_hat is not None and report.r_hat > _R_HAT:
        doubts.append(
            f"Independent groups of chains disagree (R-hat {report.r_hat:.2f}, {_R_HAT} at most): there may "
            "be modes with wrong shares, or ones that were missed."
        )
    if report.effective_draws < FEWEST_EFFECTIVE:
        doubts.append(f"The draws are worth {report.effective_draws:.0f} independent ones only.")
    if report.divergent is not None and report.divergent > _MOST_DIVERGENT:
        doubts.append(
            f"{report.divergent:.1%} of the trajectories diverged: parts of the posterior may be too narrow "
            "for the steps of the chains."
        )
    if report.cut is not None and report.cut > _MOST_CUT:
        doubts.append(
            f"About {report.cut:.1%} of the posterior would lie outside of the support of the simulated "
            "parameters, where there is no likelihood: these are draws for the prior cut to that support. "
            "Train on simulations of a wider prior."
        )
    if report.unmoved is not None and report.unmoved > _MOST_UNMOVED:
        doubts.append(f"{report.unmoved:.1%} of the chains never left their place.")
    if report.outside_reach > _MOST_OUTSIDE:
        doubts.append(
            f"{report.outside_reach:.1%} of the draws lie outside of the range of the parameters that were "
            "simulated, where the likelihood is extrapolated. Train on simulations of a wider prior."
        )
    if report.conditions_outside > _MOST_OUTSIDE:
        doubts.append(
            f"{report.conditions_outside:.1%} of the elements have conditions outside of the range that was "
            "simulated, where the likelihood is extrapolated. Train on simulations of a wider range."
        )
    return doubts
