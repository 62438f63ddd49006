"""Explanations of certificates: unusual statistics of an observation, as shares of simulations."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sbi_models.approximators.certificates.statistics import DERIVED

GIVEN = " (given the summaries)"

_NAMED, _RARE = 3, 0.99


class UnusualStatistic(NamedTuple):
    """A statistic that is above those of a share of `number` simulations, or below them; ties are neither."""

    name: str
    above: bool
    share: float
    number: int


def unusual_statistics(
    names: Sequence[str], values: Tensor, scores: Tensor, usual: Tensor
) -> list[list[UnusualStatistic]]:
    """At most three unusual statistics of each observation, each once.

    Those that are rare by themselves come first, then those given the summaries; of each kind, what much else
    changes, too, comes last; otherwise the rarest comes first.

    Args:
        names: names of the statistics, d.
        values: statistics of observations (m, d).
        scores: normal scores of the statistics (m, d), also beyond the simulations; 0 leaves one out.
        usual: values of simulations (n, d).
    """
    ordered, wanted = usual.mT.sort(dim=1).values.contiguous(), values.to(usual.dtype).mT.contiguous()
    below = torch.searchsorted(ordered, wanted).mT / len(usual)
    above = 1 - torch.searchsorted(ordered, wanted, right=True).mT / len(usual)
    shares = torch.maximum(below, above)
    derived = torch.tensor([name.partition(" of ")[0] in DERIVED for name in names], device=scores.device)
    explained = []
    for row in range(len(values)):
        rare = ((shares[row] >= _RARE) & (scores[row] != 0)).nonzero()[:, 0].tolist()
        found: dict[str, UnusualStatistic] = {}
        for i in sorted(
            rare, key=lambda i: (names[i].endswith(GIVEN), bool(derived[i]), -abs(float(scores[row, i])))
        ):
            high = bool(below[row, i] >= above[row, i])
            found.setdefault(
                names[i].removesuffix(GIVEN),
                UnusualStatistic(names[i], high, float(shares[row, i]), len(usual)),
            )
        explained.append(list(found.values())[:_NAMED])
    return explained


def describe_unusual(found: Sequence[UnusualStatistic], others: str = "simulations") -> tuple[str, ...]:
    """For instance "mean of x is above that of all simulations"."""
    return tuple(
        f"{one.name} is {'above' if one.above else 'below'} that of {_most(one)} {others}" for one in found
    )


def sizes_in_words(names: Sequence[str], size: Tensor, usual: Tensor) -> tuple[str, ...]:
    """Numbers of elements (s,) of sets that no simulation (n, s) has, in words."""
    found = []
    for i, name in enumerate(names):
        number, others = float(size[i]), usual[:, i]
        if not (others == number).any():
            where = (
                "is above"
                if number > others.max()
                else "is below"
                if number < others.min()
                else "lies between"
            )
            found.append(
                f"number of elements of {name} {where} "
                f"{'those' if where == 'lies between' else 'that'} of all simulations"
            )
    return tuple(found)


def _most(reason: UnusualStatistic) -> str:
    """The share, rounded down so that no more is claimed than is true: "all", or "99.5 % of"."""
    below = round(reason.share * reason.number)
    return "all" if below == reason.number else f"{1000 * below // reason.number / 10:.1f} % of"
