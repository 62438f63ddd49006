"""Composition in the reverse diffusion: rules for the denoised mean, with the samplers of one model.

gauss: with the denoised means mu_i of the items, covariances C_i of their posteriors, and mu_0, P_0 of the
prior,

    E[theta_0 | theta_t] = P^(-1) [sum_i P_i mu_i + (1 - n) P_0 mu_0]
    P = sum_i P_i + (1 - n) P_0,   P_i = C_i^(-1) + s^(-2)

which is exact where all are Gaussian. J. Linhart et al., arXiv:2404.07593.

langevin: the sum of diffused scores, each noise level visited by a chain of Langevin steps. T. Geffner et
al., arXiv:2209.14249; L. Touron et al., arXiv:2605.21253, say why it needs the chain.

plain: the sum of diffused scores in the reverse diffusion, the prior's as if it were standard normal, which
is what other packages do, for comparison. It is biased, since a product of diffused densities is not the
diffused product.
"""

import math

import torch
from torch import Tensor

from sbi_models.approximators.composition.items import Fresh, Items, chunks
from sbi_models.approximators.composition.methods import register_method
from sbi_models.approximators.composition.plan import Moments, Plan, generator_of, out_of_reach_notes
from sbi_models.approximators.composition.prior_scores import PriorScore
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition.score import symmetric
from sbi_models.errors import DataError
from sbi_models.networks.diffusion import SAMPLERS, Denoise, Task
from sbi_models.networks.diffusion.schedules import Cosine

_SCHEDULE = Cosine()

_NOISIEST, _CLEANEST = 10.0, 0.003
_LEVELS, _CHAIN = 60, 8
_GAUSS_STEPS, _PLAIN_STEPS = 200, 500

_DIVERGED = 100.0
"""Absolute standardized parameter from which a draw has diverged."""


@register_method("gauss")
def gauss(
    items: Items,
    prior: PriorScore,
    moments: Moments,
    num_samples: int,
    plan: Plan,
    *,
    fresh: Fresh | None = None,
) -> tuple[Tensor, CompositionReport]:
    """Precision-weighted diffusion; see `Method` for the arguments."""
    del prior, fresh
    draws = gauss_draws(items, moments, num_samples, _GAUSS_STEPS, generator_of(plan.seed, "gauss"))
    return draws, _report("gauss", items, draws, moments, _GAUSS_STEPS)


@register_method("langevin")
def langevin(
    items: Items,
    prior: PriorScore,
    moments: Moments,
    num_samples: int,
    plan: Plan,
    *,
    fresh: Fresh | None = None,
) -> tuple[Tensor, CompositionReport]:
    """Annealed Langevin steps on the sum of diffused scores; see `Method` for the arguments."""
    del fresh
    draws = _langevin_draws(items, prior, moments, num_samples, generator_of(plan.seed, "langevin"))
    return draws, _report("langevin", items, draws, moments, _LEVELS * _CHAIN)


@register_method("plain")
def plain(
    items: Items,
    prior: PriorScore,
    moments: Moments,
    num_samples: int,
    plan: Plan,
    *,
    fresh: Fresh | None = None,
) -> tuple[Tensor, CompositionReport]:
    """Reverse diffusion by the sum of diffused scores, which is biased; see `Method` for the arguments."""
    del fresh
    draws = _plain_draws(items, prior, num_samples, _PLAIN_STEPS, generator_of(plan.seed, "plain"))
    return draws, _report("plain", items, draws, moments, _PLAIN_STEPS)


def _report(
    method: str, items: Items, draws: Tensor, moments: Moments, evaluations: int
) -> CompositionReport:
    """Report of draws (m, d) that took so many scores of each item; DataError if any has diverged."""
    diverged = int((~(draws.abs() < _DIVERGED).all(dim=1)).sum())
    if diverged:
        raise DataError(
            f"The method {method!r} diverged in {diverged} of {len(draws)} draws of {len(items)} items. "
            "Use method='calibrated', which has no steps that can."
        )
    return CompositionReport(
        method=method,
        num_items=len(items),
        evaluations=evaluations * len(draws),
        notes=out_of_reach_notes(draws, moments),
    )


def gauss_draws(
    items: Items, moments: Moments, num_samples: int, steps: int, generator: torch.Generator
) -> Tensor:
    """Draws (num_samples, d) by the rule "gauss".

    Args:
        items: items of one composition.
        moments: mean (d,) and covariance (d, d) of the prior.
        num_samples: number of draws.
        steps: each costs one score of each item for each draw.
        generator: generator of the noise.
    """
    n, d = len(items), items.theta_dim
    precisions = torch.linalg.inv(items.gaussians()[1])
    prior_mean, prior_precision = moments[0], torch.linalg.inv(moments[1])
    eye = torch.eye(d, dtype=torch.float64)
    floor = torch.linalg.eigvalsh(prior_precision).min()
    values, axes = torch.linalg.eigh(symmetric(precisions.sum(dim=0) - (n - 1) * prior_precision))
    composed = axes @ torch.diag(values.clamp_min(floor)) @ axes.mT

    def denoise(theta_t: Tensor, t: Tensor) -> Tensor:
        s = float((-_SCHEDULE.log_snr(t.double()) / 2).exp())
        theta = theta_t / _SCHEDULE.alpha(t)
        back = eye / s**2
        at_prior = prior_mean + (theta - prior_mean) @ torch.linalg.solve(prior_precision + back, back)
        weighted = (1 - n) * at_prior @ (prior_precision + back)
        for rows in chunks(n, len(theta)):
            means = theta + s**2 * items.score(theta, s, rows)
            weighted = weighted + torch.einsum("kij,kmj->mi", precisions[rows] + back, means)
        mean: Tensor = torch.linalg.solve(composed + back, weighted.mT).mT
        return mean

    return _drawn(denoise, num_samples, d, steps, generator)


def _plain_draws(
    items: Items, prior: PriorScore, num_samples: int, steps: int, generator: torch.Generator
) -> Tensor:
    """Draws (num_samples, d) by the rule "plain"; arguments as for `gauss`, with the score of the prior."""

    def denoise(theta_t: Tensor, t: Tensor) -> Tensor:
        s = float((-_SCHEDULE.log_snr(t.double()) / 2).exp())
        theta = theta_t / _SCHEDULE.alpha(t)
        score = (1 - len(items)) / (1 + s**2) * prior(theta) + _summed(items, theta, s)
        return theta + s**2 * score

    return _drawn(denoise, num_samples, items.theta_dim, steps, generator)


def _langevin_draws(
    items: Items,
    prior: PriorScore,
    moments: Moments,
    num_samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Draws (num_samples, d) by the rule "langevin"; `_LEVELS * _CHAIN` scores of each item for each draw.

    Steps are preconditioned by the precision of the composed Gaussians at the level, and as long as half an
    sd in it.
    """
    n, d = len(items), items.theta_dim
    covariances = items.gaussians()[1]
    theta: Tensor | None = None
    levels = torch.logspace(
        math.log10(_NOISIEST), math.log10(_CLEANEST), _LEVELS, dtype=torch.float64
    ).tolist()
    for s in levels:
        noise = s**2 * torch.eye(d, dtype=torch.float64)
        prior_precision = torch.linalg.inv(moments[1] + noise)
        values, axes = torch.linalg.eigh(
            symmetric(torch.linalg.inv(covariances + noise).sum(dim=0) - (n - 1) * prior_precision)
        )
        values = values.clamp_min(float(torch.linalg.eigvalsh(prior_precision).min()))
        factor = axes @ torch.diag(values.rsqrt())
        if theta is None:
            theta = (
                moments[0] + torch.randn(num_samples, d, generator=generator, dtype=torch.float64) @ factor.mT
            )
        damped = 1 / (1 + s**2)
        for _ in range(_CHAIN):
            score = (1 - n) * damped * prior(theta) + _summed(items, theta, s)
            fresh = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
            theta = theta + 0.125 * score @ factor @ factor.mT + 0.5 * fresh @ factor.mT
    assert theta is not None
    return theta


def _summed(items: Items, theta: Tensor, noise: float) -> Tensor:
    total = torch.zeros_like(theta)
    for rows in chunks(len(items), len(theta)):
        total += items.score(theta, noise, rows).sum(dim=0)
    return total


def _drawn(
    denoise: Denoise, num_samples: int, theta_dim: int, steps: int, generator: torch.Generator
) -> Tensor:
    def fresh() -> Tensor:
        return torch.randn(num_samples, theta_dim, generator=generator, dtype=torch.float64)

    return SAMPLERS["sde_dpm"](Task(denoise, _SCHEDULE, fresh), steps)
