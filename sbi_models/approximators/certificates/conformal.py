"""Conformal p-values of data sets by every score that needs no simulator, for joint tests."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import betaln, gammaln
from torch import Tensor

from sbi_models.approximators.certificates.calibration import (
    EvaluationMode,
    disagreement,
    features_of,
    sizes_of,
    sizes_of_disagreement,
)
from sbi_models.approximators.certificates.protocols import CertifiedApproximator
from sbi_models.approximators.certificates.ranks import Sizes, alike_by, p_values_of_each, size_groups
from sbi_models.types import Variables

_LEVEL, _SURPRISE = 0.05, 1e-6


class ConformalPValues(NamedTuple):
    """Conformal p-values of n data sets by c scores.

    p-values (n, c) of each score alone, how many simulations of the training each is a rank among at the
    least (c,), what they have to have in common to be compared (n, s), see `ranks.Sizes`, and which are far
    from all simulations' (n,).
    """

    p_values: Tensor
    ranked_among: list[int]
    sizes: Tensor
    out_of_range: Tensor

    def look_like_training_simulations(self, start: int) -> bool:
        """Whether data sets from `start` on may be drawn like the training simulations.

        It is False for such data sets once in a million.

        Of m new ones, those with a p-value of at most k / (N + 1) among N others are a beta-binomial number
        with parameters k, N + 1 - k.
        """
        rows = self.p_values[start:]
        for own, number in zip(rows.mT, self.ranked_among, strict=True):
            k = max(1, int(_LEVEL * (number + 1)))
            count = int((own * (number + 1) <= k + 1e-6).sum())
            if beta_binomial_tail(count, len(rows), k, number + 1 - k) < _SURPRISE / len(self.ranked_among):
                return False
        return True


def beta_binomial_tail(count: int, m: int, a: float, b: float) -> float:
    """Probability that a beta-binomial number of m, with parameters a and b, is `found` or more."""
    j = np.arange(count, m + 1)
    choose = gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1)
    return float(np.exp(choose + betaln(j + a, m - j + b) - betaln(a, b)).sum())


def conformal_p_values(
    approximator: CertifiedApproximator, conditions: Variables, *, batch_size: int | None, seed: int
) -> ConformalPValues:
    """Conformal p-values of raw conditions (n, ...), by the scores and the disagreement of members.

    Those that are not known are left out.
    """
    members, p_values, numbers = approximator.members, [], []
    with EvaluationMode(approximator):
        prepared = next(iter(members.values())).prepare_conditions(conditions)
        _, sizes = sizes_of(next(iter(members.values())), prepared)
        alike, out_of_range = alike_by(sizes, sizes[:, :0]).cpu(), torch.zeros(len(sizes), dtype=torch.bool)
        known = all(member.novelty.is_known for member in members.values())
        for member in members.values() if known else ():
            points = features_of(member, prepared, batch_size)
            scores, own = member.novelty(points), member.novelty.sizes(points)
            alike = own.observed.cpu()
            assert own.out_of_range is not None
            out_of_range |= own.out_of_range.cpu()
            p_values.append(p_values_of_each(member.novelty.calibration, scores, own).cpu())
            numbers += [_fewest(own)] * scores.shape[1]
        usual = approximator.usual_disagreement.values
        if known and len(members) > 1 and isinstance(usual, Tensor):
            apart, own = (
                disagreement(members, conditions, seed=seed),
                sizes_of_disagreement(approximator, points),
            )
            p_values.append(p_values_of_each(usual[:, None], apart[:, None], own).cpu())
            numbers.append(_fewest(own))
    joined = torch.cat(p_values, dim=1) if p_values else torch.empty(len(sizes), 0, dtype=torch.float64)
    return ConformalPValues(joined, numbers, alike, out_of_range)


def _fewest(sizes: Sizes) -> int:
    return min(len(group.near) for group in size_groups(sizes))
