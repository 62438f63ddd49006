"""Posterior of data sets from a prior and a learned likelihood: draws, reports and maxima."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.approximators.element_likelihood import ElementLikelihood
from sbi_models.errors import ConfigurationError, DataError, data_sets_in_words, distrust, suggest
from sbi_models.types import Array, Variables, VariablesLike
from sbi_models.workflows.likelihood.maximum import maximize
from sbi_models.workflows.likelihood.prior import Prior
from sbi_models.workflows.likelihood.proposals import WeightedDraws
from sbi_models.workflows.likelihood.report import PosteriorReport, judged
from sbi_models.workflows.likelihood.sampler import ChainDraws, draw_by_chains
from sbi_models.workflows.likelihood.target import PosteriorTarget
from sbi_models.workflows.resampling import FEWEST_EFFECTIVE, LARGEST_K
from sbi_models.workflows.workflow import Workflow

Method = Literal["auto", "importance", "mcmc"]
_METHODS = ("auto", "importance", "mcmc")

_AT_ONCE = 64
_STARTS, _BEST = 512, 8
"""Prior draws in which a maximum is sought, and the number of the best ones that are followed."""


class LikelihoodPosterior:
    """Posterior of n data sets.

    Args:
        prior: prior of the parameters.
        likelihood: learned likelihood of the data sets.

    Raises:
        DataError: for observables outside of their support, whose likelihood is zero at all parameters.
        ConfigurationError: for a prior none of whose draws were within reach of the simulations.
    """

    def __init__(self, prior: Prior, likelihood: ElementLikelihood) -> None:
        self.prior, self.likelihood = prior, likelihood
        impossible = likelihood.elements.log_volume.isneginf().nonzero().flatten().tolist()
        if impossible:
            raise DataError(
                "Expected observables inside the support that the likelihood has learned, got some outside "
                f"in {data_sets_in_words(impossible, likelihood.number)}, such as a category that was never "
                "simulated."
            )
        draws = prior.raw(prior.draw(_STARTS, 0))
        self.conditions_outside = likelihood.conditions_beyond(draws)
        if bool(likelihood.outside_reach(draws).all()):
            raise ConfigurationError(
                "Expected a prior that overlaps with the parameters that were simulated, got one all of "
                f"whose {_STARTS} draws lie outside of their range. Train on simulations of a prior that "
                "reaches it."
            )

    def sample(
        self,
        num_samples: int,
        *,
        method: Method,
        proposal: Workflow | None,
        conditions: VariablesLike,
        at_once: int | None,
        seed: int,
    ) -> tuple[Variables, list[PosteriorReport]]:
        """Draws, name to (n, num_samples, width), raw space, and a report for each data set."""
        if method not in _METHODS:
            raise ConfigurationError(f"Unknown method {method!r}. {suggest(str(method), _METHODS)}")
        if method == "importance" and proposal is None:
            raise ConfigurationError(
                'Expected proposal= with method="importance", a trained workflow of the same parameters, got '
                "none."
            )
        n = self.likelihood.number
        weighted = None
        if proposal is not None and method != "mcmc":
            weighted = WeightedDraws(
                proposal, conditions, self.prior, self.likelihood, num_samples=num_samples, seed=seed
            )
        rest = np.arange(n)
        if weighted is not None:
            fine = (weighted.pareto_k <= LARGEST_K) & (weighted.effective >= FEWEST_EFFECTIVE)
            rest = rest[:0] if method == "importance" else np.flatnonzero(~fine)
        draws: Variables = {
            name: np.zeros((n, num_samples, width)) if weighted is None else weighted.draws[name]
            for name, width in self.prior.widths.items()
        }
        chains: dict[int, tuple[ChainDraws, int]] = {}
        target = PosteriorTarget(self.prior, self.likelihood)
        step = _AT_ONCE if at_once is None else at_once
        for start in range(0, len(rest), step):
            rows = rest[start : start + step]
            part = draw_by_chains(target, torch.as_tensor(rows), num_samples, seeding.derive(seed, "mcmc"))
            raw = self.prior.raw(part.draws.flatten(0, 1))
            for name, value in raw.items():
                draws[name][rows] = value.reshape(len(rows), num_samples, -1).numpy()
            chains |= {int(row): (part, place) for place, row in enumerate(rows)}
        reports = [self._report(row, draws, weighted, *chains.get(row, (None, 0))) for row in range(n)]
        return draws, reports

    def _report(
        self,
        row: int,
        draws: Variables,
        weighted: WeightedDraws | None,
        chains: ChainDraws | None,
        place: int,
    ) -> PosteriorReport:
        given = {name: torch.as_tensor(value[row]) for name, value in draws.items()}
        outside = float(self.likelihood.outside_reach(given).to(torch.float64).mean())
        k = None if weighted is None else float(weighted.pareto_k[row])
        if chains is None:
            assert weighted is not None
            effective, evidence = float(weighted.effective[row]), float(weighted.log_evidence[row])
            return judged(
                PosteriorReport(
                    method="importance",
                    effective_draws=effective,
                    log_evidence=evidence,
                    outside_reach=outside,
                    conditions_outside=float(self.conditions_outside[row]),
                    pareto_k=k,
                )
            )
        return judged(
            PosteriorReport(
                method="mcmc",
                effective_draws=float(chains.effective[place]),
                log_evidence=float(chains.log_evidence[place]),
                outside_reach=outside,
                conditions_outside=float(self.conditions_outside[row]),
                pareto_k=k,
                r_hat=float(chains.r_hat[place]),
                acceptance=float(chains.acceptance[place]),
                divergent=float(chains.divergent[place]),
                cut=float(chains.cut[place]),
                unmoved=float(chains.unmoved[place]),
            )
        )

    # ---- maximum ------------------------------------------------------------

    def maximum(self, *, is_raw: bool, seed: int) -> Variables:
        """Parameters of the highest density, raw or unbounded, name to (n, width), raw space."""
        target = PosteriorTarget(self.prior, self.likelihood)
        found = []
        for row in range(self.likelihood.number):
            start = self.prior.draw(_STARTS, seeding.derive(seed, "start", row))
            objective = _Objective(target, row, is_raw=is_raw)
            value, _ = objective(start)
            best = start[value.topk(min(_BEST, len(start))).indices]
            scale = start.std(dim=0).clamp(min=1e-300).expand_as(best)
            points, value = maximize(objective, best, scale)
            found.append(points[value.argmax()])
        return {name: value.detach().numpy() for name, value in self.prior.raw(torch.stack(found)).items()}


class _Objective:
    """Log posterior density of one data set at z (m, d), of raw parameters or of z, and its gradient in z."""

    def __init__(self, target: PosteriorTarget, row: int, *, is_raw: bool) -> None:
        self.target, self.row, self.is_raw = target, torch.tensor([row]), is_raw

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        last = self.target.num_stages(self.row) - 1
        evaluation = self.target(z[None], self.row, last)
        value, slope = evaluation.tempered(torch.ones(1, dtype=torch.float64))
        value, slope = value[0], slope[0]
        if self.is_raw:
            with torch.enable_grad():
                points = z.detach().clone().requires_grad_()
                volume = self.target.prior.log_volume(self.target.prior.raw(points)) + 0 * points.sum(dim=1)
                (more,) = torch.autograd.grad(volume.sum(), points)
            value, slope = value + volume.detach(), slope + more
        fine = value.isfinite()
        return torch.where(fine, value, -torch.inf), torch.where(fine[:, None], slope, 0.0)


def warn_of_posteriors(reports: list[PosteriorReport]) -> None:
    """One TrustWarning for all data sets whose draws should not be trusted."""
    doubtful: Array = np.flatnonzero([not report.is_reliable for report in reports])
    if len(doubtful):
        distrust(
            f"Posterior draws of {data_sets_in_words(doubtful.tolist(), len(reports))} should not be "
            f"trusted. {' '.join(reports[int(doubtful[0])].warnings)}"
        )
