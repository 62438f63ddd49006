"""Tempering from the prior to the posterior: particles are weighted, taken again and moved.

A sequential Monte Carlo sampler for many data sets at once: particles drawn from the prior follow p(theta)
p(x | theta)^b while b goes from 0 to 1, in steps that leave half of them effective; where data have many
elements, stage by stage of them. Particles of each data set are in several groups that share no particle, so
that groups are independent runs: if they agree, no mode has been missed by chance. The product of the mean
weights estimates the evidence.

P. Del Moral, A. Doucet, A. Jasra, Sequential Monte Carlo samplers, J. R. Stat. Soc. B 68 (2006); A. Jasra et
al., Inference for Lévy-driven stochastic volatility models via adaptive sequential Monte Carlo, Scand. J.
Stat. 38 (2011).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sbi_models.workflows.likelihood.kernels import Chains
from sbi_models.workflows.likelihood.streams import Streams

_EFFECTIVE = 0.5
"""Effective share of the particles of a data set after a step."""

_BISECTIONS = 40
_MOVES, _RATE = 3, 0.5
"""Hamiltonian moves of every particle at each temperature, and rate at which step sizes are adapted."""

_MOST_STEPS = 200


@dataclass
class Tempered:
    """Result of tempering.

    Attributes:
        chains: particles of the posterior, chains from now on.
        log_evidence: log p(x) of each data set and group, (n, groups), in nats.
        arrived: booleans (n,): whether the posterior was reached.
    """

    chains: Chains
    log_evidence: Tensor
    arrived: Tensor


def temper(chains: Chains, streams: Streams) -> Tempered:
    """Move chains from draws of the prior to the posterior, data set by data set at its own pace."""
    n, groups = len(chains.z), chains.groups
    log_evidence = torch.zeros(n, groups, dtype=torch.float64)
    stuck = torch.zeros(n, dtype=torch.bool)
    for _ in range(_MOST_STEPS):
        active = (~chains.arrived & ~stuck).nonzero().flatten()
        if not len(active):
            break
        part = chains.rows(active)
        part.next_stage()
        likelihood = part.evaluation.likelihood
        hopeless = ~likelihood.isfinite().reshape(len(active), groups, -1).any(dim=2).all(dim=1)
        power = _next_power(likelihood, part.power)
        increments = (power - part.power)[:, None] * likelihood
        weights = torch.where(likelihood.isfinite(), increments, -torch.inf).reshape(len(active), groups, -1)
        log_evidence[active] += weights.logsumexp(dim=2) - math.log(weights.shape[2])
        positions = _taken_again(weights, streams.uniform((groups,), active))
        part.take(positions)
        part.power = torch.where(hopeless, part.power, power)
        part.learn_metric()
        for _ in range(_MOVES):
            part.move(streams, active, rate=_RATE)
        part.jump(streams, active)
        stuck[active] = hopeless
        chains.put(active, part)
    return Tempered(chains, log_evidence, chains.arrived)


def _next_power(likelihood: Tensor, power: Tensor) -> Tensor:
    """Largest next power (n,) that leaves the wanted share of particles effective, by bisection."""
    wanted = _EFFECTIVE * likelihood.isfinite().sum(dim=1).clamp(min=1)

    def effective(candidate: Tensor) -> Tensor:
        logs = torch.where(likelihood.isfinite(), (candidate - power)[:, None] * likelihood, -torch.inf)
        logs = logs - logs.amax(dim=1, keepdim=True).nan_to_num(neginf=0.0)
        weights = logs.exp()
        return weights.sum(dim=1).square() / weights.square().sum(dim=1).clamp(min=1e-300)

    low, high = power.clone(), torch.ones_like(power)
    done = effective(high) >= wanted
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        fine = effective(middle) >= wanted
        low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
    return torch.where(done, 1.0, torch.maximum(low, torch.nextafter(power, torch.ones_like(power))))


def _taken_again(weights: Tensor, start: Tensor) -> Tensor:
    """Positions (n, groups * m) by systematic resampling of log weights (n, groups, m) in each group.

    `start` are uniform numbers (n, groups).
    """
    n, groups, m = weights.shape
    shifted = weights - weights.amax(dim=2, keepdim=True).nan_to_num(neginf=0.0)
    shares = shifted.exp()
    shares = torch.where(shares.sum(dim=2, keepdim=True) > 0, shares, 1.0)
    ends = shares.cumsum(dim=2) / shares.sum(dim=2, keepdim=True)
    levels = (torch.arange(m, dtype=torch.float64) + start[..., None]) / m
    within = torch.searchsorted(ends.contiguous(), levels.contiguous()).clamp(max=m - 1)
    return (within + m * torch.arange(groups)[:, None]).reshape(n, groups * m)
