"""Posterior draws by many Markov chains: tempered from the prior, run until independent groups agree."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sbi_models import seeding
from sbi_models.diagnostics import effective_draws, rank_normalized_r_hat
from sbi_models.types import Array, FloatArray
from sbi_models.workflows.likelihood.kernels import Chains
from sbi_models.workflows.likelihood.mixture import StudentMixture
from sbi_models.workflows.likelihood.streams import Streams
from sbi_models.workflows.likelihood.target import Target
from sbi_models.workflows.likelihood.tempering import temper

_GROUPS, _CHAINS = 4, 32
"""Independent groups of chains of a data set, and chains of each."""

_WARM_UP, _FEWEST_KEPT, _EXPLORING = 8, 24, 8
"""Moves of a warm-up, least number of draws of a chain that are kept, and number of those for a mixture."""

_RATE = 1.0
"""Rate at which step sizes are adapted in the first move of a warm-up, later ones in proportion to 1 / k."""

_PROPOSALS = (1, 4)
"""Independent proposals, each with a jump, between two draws that are kept, in the first and second round."""

_ROUNDS = ((2, 4), (4, 4), (4, 8))
"""Hamiltonian moves between two draws that are kept, and jumps after each move, of each later round."""

_R_HAT, _EFFECTIVE = 1.01, 400
"""Agreement of groups, and effective draws, at which a data set is finished."""


@dataclass
class ChainDraws:
    """Draws of many chains, and how good they are.

    Attributes:
        draws: (n, num_samples, d), unbounded space.
        r_hat: largest rank-normalized R-hat of the coordinates, between independent groups, (n,).
        effective: smallest effective number of draws, for place and spread, of the coordinates, (n,).
        acceptance: mean acceptance of the moves (n,).
        divergent: share of divergent trajectories (n,).
        cut: share of points half an sd from the chains where the density is zero (n,).
        unmoved: share of chains that never left their place (n,).
        log_evidence: log p(x) in nats (n,).
        arrived: whether the posterior was reached (n,).
    """

    draws: Tensor
    r_hat: FloatArray
    effective: FloatArray
    acceptance: FloatArray
    divergent: FloatArray
    cut: FloatArray
    unmoved: FloatArray
    log_evidence: FloatArray
    arrived: Array


def draw_by_chains(target: Target, numbers: Tensor, num_samples: int, seed: int) -> ChainDraws:
    """Draw from the target of the data sets with some numbers (n,), each from a random stream of its own."""
    n, c = len(numbers), _GROUPS * _CHAINS
    starts = [target.start(c, seeding.derive(seed, "start", int(number))) for number in numbers]
    streams = Streams(seed, numbers.tolist())
    tempered = temper(Chains(target, numbers, torch.stack(starts), _GROUPS), streams)
    chains = tempered.chains
    kept = max(_FEWEST_KEPT, -(-num_samples // c))
    result = ChainDraws(
        draws=torch.zeros(n, num_samples, target.width, dtype=torch.float64),
        r_hat=np.full(n, np.inf),
        effective=np.zeros(n),
        acceptance=np.zeros(n),
        divergent=np.zeros(n),
        cut=np.zeros(n),
        unmoved=np.ones(n),
        log_evidence=(tempered.log_evidence.logsumexp(dim=1) - math.log(_GROUPS)).numpy(),
        arrived=tempered.arrived.numpy(),
    )
    active = torch.arange(n)
    for number in range(2 + len(_ROUNDS)):
        part = chains.rows(active)
        drawn = _round(number, part, streams, active, kept)
        chains.put(active, part)
        _record(result, part, drawn, rows=active, chance=streams.uniform((kept * c,), active))
        result.cut[active.numpy()] = part.share_outside(streams, active).numpy()
        unfinished = (result.r_hat > _R_HAT) | (result.effective < _EFFECTIVE)
        active = torch.as_tensor(np.flatnonzero(unfinished & result.arrived))
        if not len(active):
            break
    return result


def _round(number: int, chains: Chains, streams: Streams, rows: Tensor, kept: int) -> Tensor:
    """Draws (n, kept, c, d) of a round, which cost more the higher its number.

    Independent proposals need no gradient: they are fitted to where the chains are, then to more points.
    """
    if number == 0:
        return _independent(chains, streams, rows, kept, points=chains.z, times=_PROPOSALS[0])
    if number == 1:
        explored = _hamiltonian(chains, streams, rows, _EXPLORING, moves=1, jumps=1)
        return _independent(chains, streams, rows, kept, points=explored.flatten(1, 2), times=_PROPOSALS[1])
    moves, jumps = _ROUNDS[number - 2]
    return _hamiltonian(chains, streams, rows, kept, moves=moves, jumps=jumps)


def _hamiltonian(
    chains: Chains, streams: Streams, rows: Tensor, kept: int, *, moves: int, jumps: int
) -> Tensor:
    """Draws (n, kept, c, d) by Hamiltonian moves and jumps, after a warm-up."""
    chains.learn_metric()
    for number in range(_WARM_UP):
        chains.move(streams, rows, rate=_RATE / (1 + number))
        chains.jump(streams, rows)
    chains.reset_counts()
    drawn = []
    for _ in range(kept):
        for _ in range(moves):
            chains.move(streams, rows)
            for _ in range(jumps):
                chains.jump(streams, rows)
        drawn.append(chains.z.clone())
    return torch.stack(drawn, dim=1)


def _independent(
    chains: Chains, streams: Streams, rows: Tensor, kept: int, *, points: Tensor, times: int
) -> Tensor:
    """Draws (n, kept, c, d) by proposals of a mixture that is fitted to points (n, p, d), and jumps."""
    mixture = StudentMixture(points, streams, rows)
    drawn = []
    for number in range(-_WARM_UP, kept):
        if number == 0:
            chains.reset_counts()
        for _ in range(times):
            chains.draw_independently(mixture, streams, rows)
            chains.jump(streams, rows, with_slopes=False)
        if number >= 0:
            drawn.append(chains.z.clone())
    return torch.stack(drawn, dim=1)


def _record(result: ChainDraws, part: Chains, drawn: Tensor, *, rows: Tensor, chance: Tensor) -> None:
    """Take over the draws (n, kept, c, d) of a round, which ones by uniform numbers (n, kept * c)."""
    n, kept, c, d = drawn.shape
    grouped = drawn.reshape(n, kept, _GROUPS, c // _GROUPS, d).permute(0, 4, 2, 1, 3)
    by_chain = drawn.permute(0, 3, 2, 1).numpy()
    index = rows.numpy()
    result.r_hat[index] = rank_normalized_r_hat(grouped.reshape(n, d, _GROUPS, -1).numpy()).max(axis=1)
    folded = np.abs(by_chain - np.median(by_chain, axis=(-2, -1), keepdims=True))
    effective = np.minimum(effective_draws(by_chain), effective_draws(folded)).min(axis=1)
    result.effective[index] = np.minimum(effective, kept * c)
    result.acceptance[index] = (part.accepted / part.tried).numpy()
    result.divergent[index] = (part.divergent / part.tried).numpy()
    result.unmoved[index] = (by_chain == by_chain[..., :1]).all(axis=(1, 3)).mean(axis=1)
    chosen = chance.argsort(dim=1)[:, : result.draws.shape[1]]
    flat = drawn.reshape(n, kept * c, d)
    result.draws[rows] = flat.gather(1, chosen[..., None].expand(-1, -1, d))
