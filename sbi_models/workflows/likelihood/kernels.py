"""Markov kernels of many chains of many data sets at once: Hamiltonian moves, and jumps between modes.

Every data set has a metric and a step size of its own, learned while chains are adapted, and random numbers
from a stream of its own, so that its draws do not depend on what data sets are beside it.

R. M. Neal, MCMC using Hamiltonian dynamics, Handbook of Markov Chain Monte Carlo (2011), arXiv:1206.1901;
C. J. F. ter Braak, A Markov chain Monte Carlo version of the genetic algorithm Differential Evolution,
Statistics and Computing 16 (2006): jumps by the difference of two other chains lead from mode to mode.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sbi_models.workflows.likelihood.mixture import StudentMixture
from sbi_models.workflows.likelihood.streams import Streams
from sbi_models.workflows.likelihood.target import Evaluation, Target

_LENGTHS, _MOST_STEPS = (2.2, 1.4, 3.0, 1.8, 2.6), 10
"""Lengths of trajectories, in sds, of one move after the other, which differ to avoid periods; most steps."""

_WANTED = 0.8
"""Acceptance that step sizes are adapted to."""

_DIVERGENT = 1_000.0
"""Error of the energy, in nats, from which a trajectory counts as divergent."""

_PROBES = 4
"""Points for each chain by which the share outside of the support is estimated."""

_RIDGE, _CHAINS_PER_COORDINATE = 1e-9, 8
"""Share of the variance that is added to every coordinate of a metric, and least number of chains for each
coordinate without which correlations are shrunk."""


class Chains:
    """Chains z (n, c, d) of n data sets in unbounded space, at a power (n,) of the likelihood.

    Args:
        target: density of all data sets.
        numbers: the numbers of the data sets in the target, (n,).
        z: where chains are.
        groups: number of groups of chains, of c / groups each, that share no information but the metric.
    """

    def __init__(self, target: Target, numbers: Tensor, z: Tensor, groups: int) -> None:
        n, _, d = z.shape
        self.target, self.numbers, self.z, self.groups = target, numbers, z, groups
        self.stage, self.last_stage = torch.zeros_like(numbers), target.num_stages(numbers) - 1
        self.evaluation, self.has_slopes = target(z, numbers, self.stage), True
        self.power = torch.zeros(n, dtype=torch.float64)
        self.root = torch.eye(d, dtype=torch.float64).expand(n, d, d).clone()
        self.log_step = torch.full((n,), -0.5 - 0.25 * math.log(d), dtype=torch.float64)
        self.moves = 0
        self.accepted = torch.zeros(n, dtype=torch.float64)
        self.tried = torch.zeros(n, dtype=torch.float64)
        self.divergent = torch.zeros(n, dtype=torch.float64)
        self.learn_metric()

    _PER_ROW = (
        "numbers",
        "z",
        "stage",
        "last_stage",
        "power",
        "root",
        "log_step",
        "accepted",
        "tried",
        "divergent",
    )

    def rows(self, index: Tensor) -> "Chains":
        """Chains of some data sets, copies."""
        part = object.__new__(Chains)
        part.target, part.groups, part.moves = self.target, self.groups, self.moves
        part.has_slopes = self.has_slopes
        for name in self._PER_ROW:
            setattr(part, name, getattr(self, name)[index])
        part.evaluation = self.evaluation.rows(index)
        return part

    def put(self, index: Tensor, part: "Chains") -> None:
        """Put chains of some data sets back."""
        for name in self._PER_ROW:
            getattr(self, name)[index] = getattr(part, name)
        for old, new in zip(self.evaluation, part.evaluation, strict=True):
            old[index] = new
        self.moves, self.has_slopes = max(self.moves, part.moves), self.has_slopes and part.has_slopes

    @property
    def arrived(self) -> Tensor:
        """Booleans (n,): whether the chains are those of the posterior."""
        return (self.power >= 1) & (self.stage == self.last_stage)

    def next_stage(self) -> None:
        """Go on to the elements of the next stage, at power 0, where those of this one are in."""
        ready = ((self.power >= 1) & (self.stage < self.last_stage)).nonzero().flatten()
        if len(ready):
            self.stage[ready] += 1
            self.power[ready] = 0.0
            found = self.target(self.z[ready], self.numbers[ready], self.stage[ready])
            self.evaluation = self.evaluation.updated(ready, found)

    def learn_slopes(self) -> None:
        """Evaluate gradients where chains are, if moves without them were made."""
        if not self.has_slopes:
            self.evaluation, self.has_slopes = self.target(self.z, self.numbers, self.stage), True

    def take(self, positions: Tensor) -> None:
        """Put the chains at positions (n, c) in the place of all."""
        self.z = self.z.gather(1, positions[..., None].expand_as(self.z))
        self.evaluation = self.evaluation.taken(positions)

    def reset_counts(self) -> None:
        """Count acceptances and divergences from now on."""
        for count in (self.accepted, self.tried, self.divergent):
            count.zero_()

    def learn_metric(self) -> None:
        """Take the covariance of the chains, with a ridge, as the metric."""
        _, c, d = self.z.shape
        centred = self.z - self.z.mean(dim=1, keepdim=True)
        covariance = centred.mT @ centred / c
        scale = covariance.diagonal(dim1=1, dim2=2).clamp(min=1e-300).sqrt()
        correlation = covariance / (scale[:, :, None] * scale[:, None, :])
        share = 0.0 if c >= _CHAINS_PER_COORDINATE * d else d / (c + d)
        shrunk = correlation * (1 - share) + torch.eye(d, dtype=torch.float64) * (share + _RIDGE)
        root, info = torch.linalg.cholesky_ex(shrunk)
        root = torch.where((info == 0)[:, None, None], root, torch.eye(d, dtype=torch.float64))
        self.root = scale[:, :, None] * root

    def move(self, streams: Streams, rows: Tensor, *, rate: float = 0.0) -> None:
        """One Hamiltonian move of every chain; the random numbers are those of the streams `rows`.

        The logarithm of the step size is adapted by `rate` times the excess of the acceptance.
        """
        self.learn_slopes()
        _, c, d = self.z.shape
        length = _LENGTHS[self.moves % len(_LENGTHS)]
        self.moves += 1
        momentum = streams.normal((c, d), rows)
        chance = streams.uniform((c + 1,), rows)
        step = self.log_step.exp() * (0.8 + 0.4 * chance[:, -1])
        steps = (length / step).ceil().clamp(max=_MOST_STEPS)
        before, slope = self.evaluation.tempered(self.power)
        start = momentum.square().sum(dim=2) / 2 - before
        z, evaluation = self.z, self.evaluation
        for number in range(int(steps.max())):
            going = (steps > number).nonzero().flatten()
            size, root = step[going, None, None], self.root[going]
            half = momentum[going] + size / 2 * (slope[going] @ root)
            there = z[going] + size * (half @ root.mT)
            found = self.target(there, self.numbers[going], self.stage[going])
            slope = slope.index_copy(0, going, found.tempered(self.power[going])[1])
            momentum = momentum.index_copy(0, going, half + size / 2 * (slope[going] @ root))
            z, evaluation = z.index_copy(0, going, there), evaluation.updated(going, found)
        after, _ = evaluation.tempered(self.power)
        error = momentum.square().sum(dim=2) / 2 - after - start
        error = torch.where(error.isnan(), torch.inf, error)
        probability = torch.exp(-error.clamp(min=0.0))
        self._choose(chance[:, :c] < probability, z, evaluation)
        self.accepted += probability.mean(dim=1)
        self.tried += 1
        nowhere = after.isneginf()
        self.divergent += ((error > _DIVERGENT) & ~nowhere).to(torch.float64).mean(dim=1)
        self.log_step = self.log_step + rate * (probability.mean(dim=1) - _WANTED)

    def jump(self, streams: Streams, rows: Tensor, *, with_slopes: bool = True) -> None:
        """Propose to every chain a jump by the difference of two chains of the other half.

        Halves cut through all groups, so that a group which has lost a mode can find it again; where chains
        are does not pass from group to group.
        """
        chance = streams.uniform((3, self.z.shape[1]), rows)
        for index, pool in self._halves():
            one, two = (
                pool[(chance[:, k, index] * len(pool)).long().clamp(max=len(pool) - 1)] for k in range(2)
            )
            z = self.z[:, index] + self._at(one) - self._at(two)
            self._propose(index, z, 0.0, chance[:, 2, index], with_slopes=with_slopes)

    def draw_independently(self, mixture: StudentMixture, streams: Streams, rows: Tensor) -> None:
        """Propose to every chain a draw of a mixture, which needs no gradients."""
        c = self.z.shape[1]
        z, everyone = mixture.draw(c, streams, rows), torch.arange(c)
        excess = mixture.log_density(z) - mixture.log_density(self.z)
        chance = streams.uniform((c,), rows)
        accepted = self._propose(everyone, z, excess, chance, with_slopes=False)
        self.accepted += accepted.to(torch.float64).mean(dim=1)
        self.tried += 1

    def share_outside(self, streams: Streams, rows: Tensor) -> Tensor:
        """Share (n,) of points half an sd from the chains, in all directions, where the density is zero.

        About what a support has cut off from the posterior, whatever the moves that were made.
        """
        self.learn_metric()
        _, c, d = self.z.shape
        noise = streams.normal((_PROBES * c, d), rows)
        z = self.z.repeat(1, _PROBES, 1) + 0.5 * noise @ self.root.mT
        found = self.target(z, self.numbers, self.stage, with_slopes=False)
        return found.tempered(self.power)[0].isneginf().to(torch.float64).mean(dim=1)

    def _halves(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Positions of the chains that move, and of those that stay meanwhile."""
        even, odd = (torch.arange(start, self.z.shape[1], 2) for start in (0, 1))
        yield even, odd
        yield odd, even

    def _propose(
        self, index: Tensor, z: Tensor, excess: Tensor | float, chance: Tensor, *, with_slopes: bool
    ) -> Tensor:
        """Accept (n, m) or reject points z (n, m, d) for the chains `index` (m,).

        `excess` is the log density of the proposal of z less that of proposing the way back.
        """
        evaluation = self.target(z, self.numbers, self.stage, with_slopes=with_slopes)
        old = Evaluation(*(part[:, index] for part in self.evaluation))
        error = old.tempered(self.power)[0] - evaluation.tempered(self.power)[0] + excess
        accept = chance < torch.exp(-error.nan_to_num(nan=torch.inf).clamp(min=0.0))
        for part, new in zip(self.evaluation, old.chosen(accept, evaluation), strict=True):
            part[:, index] = new
        self.z[:, index] = torch.where(accept[..., None], z, self.z[:, index])
        self.has_slopes &= with_slopes
        return accept

    def _at(self, positions: Tensor) -> Tensor:
        return self.z.gather(1, positions[..., None].expand(*positions.shape, self.z.shape[2]))

    def _choose(self, accept: Tensor, z: Tensor, evaluation: Evaluation) -> None:
        self.z = torch.where(accept[..., None], z, self.z)
        self.evaluation = self.evaluation.chosen(accept, evaluation)
