"""How rare data sets are by every score that needs no simulator, for tests that are to be taken together with others."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.special import betaln, gammaln
from torch import Tensor

from sbi_models.approximators.certificates.issue import Evaluating, disagreement, points_of
from sbi_models.approximators.certificates.spaces import p_values_of_each
from sbi_models.types import Variables

if TYPE_CHECKING:
    from sbi_models.approximators.base import Approximator

_LEVEL, _SURPRISE = 0.05, 1e-6


class Rarities(NamedTuple):
    """p-values (n, c) of n data sets by c scores, each alone, and how many simulations of the training each is a rank among, (c,)."""

    p_values: Tensor
    ranked_among: list[int]

    def are_usual(self, start: int) -> bool:
        """Whether data sets from `start` on may be drawn like the simulations of the training: true of such ones but once in a million.

        Of m new ones, those with a p-value of at most k / (N + 1) among N others are a beta-binomial number with parameters k, N + 1 - k.
        """
        rows = self.p_values[start:]
        for own, number in zip(rows.mT, self.ranked_among, strict=True):
            k = max(1, int(_LEVEL * (number + 1)))
            found = int((own * (number + 1) <= k + 0.5).sum())
            if beta_binomial_tail(found, len(rows), k, number + 1 - k) < _SURPRISE / len(self.ranked_among):
                return False
        return True


def beta_binomial_tail(found: int, m: int, a: float, b: float) -> float:
    """Probability that a beta-binomial number of m, with parameters a and b, is `found` or more."""
    j = np.arange(found, m + 1)
    choose = gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1)
    return float(np.exp(choose + betaln(j + a, m - j + b) - betaln(a, b)).sum())


def rarities(approximator: "Approximator", conditions: Variables, *, batch_size: int | None, seed: int) -> Rarities:
    """Of raw conditions (n, ...): by the novelty of each member, and by the disagreement of members, as far as these are known."""
    members, p_values, numbers = approximator.members, [], []
    with Evaluating(approximator):
        prepared = next(iter(members.values())).prepare_conditions(conditions)
        for member in members.values():
            if member.novelty.is_known:
                scores = member.novelty(points_of(member, prepared, batch_size))
                p_values.append(p_values_of_each(member.novelty.calibration, scores).cpu())
                numbers += [len(member.novelty.calibration)] * scores.shape[1]
        usual = approximator.usual_disagreement.values
        if len(members) > 1 and isinstance(usual, Tensor):
            apart = disagreement(members, conditions, seed=seed)
            p_values.append(p_values_of_each(usual[:, None], apart[:, None]).cpu())
            numbers.append(len(usual))
    n = len(next(iter(conditions.values())))
    return Rarities(torch.cat(p_values, dim=1) if p_values else torch.empty(n, 0, dtype=torch.float64), numbers)
