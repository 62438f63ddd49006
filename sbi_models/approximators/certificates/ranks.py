"""Conformal p-values by rank among simulations: exact in finite samples, with ties or without.

They are exact given the number of elements of a set, too.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sbi_models import seeding

FEWEST_OF_A_SIZE = 39
"""So many simulations of the same size are compared with alone: 0.05 is then one of the p-values; fewer are
joined by the nearest sizes.

The level is exact on average over calibrations. One calibration, which all observations of a size share, has
a share of false alarms from a Beta(2, 38) law: 0.05, more or less 0.034."""

LARGEST_LOT = 0.1
"""Ties are broken at random where at most this share of the simulations is tied; more common data are as rare
as all alike, and no less."""

_SHARE_ALIKE, _FEWEST_ALIKE = 0.1, 99
_LEVELS, _SIZES_THAT_JOIN = 20, 4
_FAR = 0.1
_ROWS_AT_ONCE = 64
_TIE = 1e-6
_DIGITS = 1e12


class Sizes(NamedTuple):
    """What simulations (n, s) and observations (m, s) have to have in common to be compared.

    The columns are the logs of 1 + the number of elements of sets, and contexts in sds. `out_of_range` (m,)
    says which observations are far from all that is known; see `sizes_far_from`.
    """

    usual: Tensor
    observed: Tensor
    out_of_range: Tensor | None = None


class Group(NamedTuple):
    """Positions of observations of one size, of simulations of that size, and of those of near sizes."""

    rows: Tensor
    same: Tensor
    near: Tensor


def size_groups(sizes: Sizes) -> Iterator[Group]:
    """Groups of simulations to compare observations with, one for each size and context of observations.

    Sizes are near by their ratio, contexts by their difference: a tenth of all simulations, 99 at the least,
    and all that are as near. Of the same size, so many are taken that 0.05 is one of the p-values. Where
    there are fewer than `FEWEST_OF_A_SIZE`, those of the nearest sizes join them, or, where more than four
    sizes would be needed, as of contexts, all that are near stand for them; what is left then is by how much
    scores change between these.
    """
    usual, observed, _ = sizes
    every = torch.arange(len(usual), device=usual.device)
    if not usual.shape[1]:
        yield Group(torch.arange(len(observed), device=observed.device), every, every)
        return
    most = min(len(usual), max(_FEWEST_ALIKE, int(_SHARE_ALIKE * len(usual))))
    for size in unique_sizes(observed):
        rows = (observed == size).all(dim=1).nonzero()[:, 0]
        distances = (usual - size).abs().amax(dim=1)
        near = every[distances <= distances.kthvalue(most).values]
        few = distances.kthvalue(min(len(usual), FEWEST_OF_A_SIZE)).values
        order = distances.argsort(stable=True)
        alike = order[: int((distances <= few).sum())]
        number = (len(alike) + 1) // _LEVELS * _LEVELS - 1
        is_few = len(distances[alike].unique()) <= _SIZES_THAT_JOIN and number >= FEWEST_OF_A_SIZE
        yield Group(rows, alike[:number] if is_few else near, near)


def alike_by(sizes: Tensor, contexts: Tensor) -> Tensor:
    """Columns of `Sizes` (n, s + c) from numbers of elements (n, s) and contexts in sds (n, c)."""
    return torch.cat([torch.log1p(sizes.to(torch.float64)), contexts.to(torch.float64)], dim=1)


def sizes_far_from(known: Tensor, observed: Tensor) -> Tensor:
    """Whether numbers of elements (m, s) differ from all known ones (n, s) by more than a tenth.

    Between known ones, those that differ by one are near. Where all known ones are the same, as without
    padding and missing values, any other one is far from it.
    """
    if not known.shape[1]:
        return torch.zeros(len(observed), dtype=torch.bool, device=observed.device)
    constant = (known == known[:1]).all(dim=0)
    unheard_of = ((observed != known[:1]) & constant).any(dim=1)
    others, own = unique_sizes(known).to(torch.float64), observed.to(torch.float64)
    between = (own >= others.amin(dim=0)) & (own <= others.amax(dim=0))
    next_to = ((own[:, None] - others).abs() <= 1) & between[:, None]
    ratios = (torch.log1p(own)[:, None] - torch.log1p(others)).abs()
    near = ((ratios <= _FAR) | next_to).all(dim=2).any(dim=1)
    return unheard_of | ~near


def unique_sizes(sizes: Tensor) -> Tensor:
    """Each of the sizes (n, s) once."""
    return torch.unique(sizes, dim=0) if sizes.shape[1] else sizes[:1]


def nearest_sizes(sizes: Tensor, wanted: Tensor, number: int, most: int) -> tuple[Tensor, bool]:
    """Positions of simulations of sizes (n, s), in order, `number` of each size in (m, s).

    At most `most` of these sizes are taken, from end to end.

    And whether all of them are of these sizes, and not only near.
    """
    every = unique_sizes(wanted)
    some = every[torch.linspace(0, len(every) - 1, min(most, len(every)), dtype=torch.float32).round().long()]
    distances = torch.cdist(
        torch.log1p(some.to(torch.float64)), torch.log1p(sizes.to(torch.float64)), p=torch.inf
    )
    nearest = distances.sort(dim=1, stable=True)
    return torch.unique(nearest.indices[:, :number]), bool((nearest.values[:, :number] == 0).all())


def tie_breakers(number: int, seed: int) -> Tensor:
    """Uniform numbers (number,) that break ties."""
    return 1 - torch.as_tensor(seeding.generator(seed, "ties").uniform(size=number))


def p_values_of_each(calibration: Tensor, observed: Tensor, sizes: Sizes | None = None) -> Tensor:
    """P-values (m, c) of observed scores (m, c), each alone, among simulations (n, c) of like size.

    Large scores are rare, and ties lie beyond.

    They are exact where all are of one size, or all that are near are of the observation's own.
    """
    p_values = torch.empty(observed.shape, dtype=torch.float64, device=observed.device)
    for rows, _, near in size_groups(sizes or _without(calibration, observed)):
        p_values[rows] = _among_others(calibration[near], observed[rows]).to(torch.float64) / (len(near) + 1)
    return p_values


def joint_p_values(
    calibration: Tensor,
    observed: Tensor,
    known: tuple[Tensor, Tensor] | None = None,
    *,
    sizes: Sizes | None = None,
    ties: Tensor | None = None,
) -> Tensor:
    """Exact joint p-values (m,) of observed scores (m, c) among simulations (n, c); large is rare.

    Each score is ranked among the n + 1; the smallest rank of a row, with the mean of its ranks to break
    ties, is ranked again. Rows are treated alike, so that an observation drawn like the simulations has each
    of the n + 1 ranks with equal probability, however many scores there are and however they depend on each
    other: the correction for multiple tests costs nothing for scores that repeat.

    Args:
        calibration, observed: scores of simulations and observations; c may be 0 if something is known.
        known: p-values of the same rows, (n, k) and (m, k), that further simulations gave: they stand beside
            rank / (n + 1) as they are, and may be finer. Any function of a single row, learned from others,
            leaves the result exact.
        sizes: numbers of elements of the sets; each observation is compared with simulations of its size, see
            `size_groups`. One that is rarer than all of these has its rank among those of near sizes, if
            that is smaller: p-values below 1 / (number of its size + 1) are not exact. A size out of range
            has the smallest p-value.
        ties: uniform numbers (m,), see `tie_breakers`, that place an observation among simulations with equal
            ranks, as discrete data have, which keeps p <= a as frequent as a; but see `LARGEST_LOT`. None
            places it after them, and p <= a is at most as frequent.

    References: Westfall & Young (1993), Resampling-based multiple testing; Vovk, Gammerman & Shafer (2005),
    Algorithmic learning in a random world.
    """
    m = len(observed)
    usual_p, found_p = (
        (calibration.new_empty(len(calibration), 0), calibration.new_empty(m, 0)) if known is None else known
    )
    places = (
        torch.ones(m, dtype=torch.float64, device=observed.device)
        if ties is None
        else ties.to(observed.device)
    )
    p_values = torch.empty(m, dtype=torch.float64, device=observed.device)
    sizes = sizes or _without(calibration, observed)
    for rows, same, near in size_groups(sizes):
        for some in torch.split(rows, _ROWS_AT_ONCE):
            p, *finer = (
                _joint(calibration[of], observed[some], (usual_p[of], found_p[some]), places[some])
                for of in ((same,) if same is near else (same, near))
            )
            for finest in finer:
                p = torch.where(p <= 1 / (len(same) + 1), torch.minimum(p, finest), p)
            p_values[some] = p
    if sizes.out_of_range is not None:
        p_values[sizes.out_of_range] = 1 / (len(calibration) + 1)
    return p_values


def _joint(calibration: Tensor, observed: Tensor, known: tuple[Tensor, Tensor], places: Tensor) -> Tensor:
    """Joint p-values of all rows among all simulations, as `joint_p_values`."""
    n = len(calibration)
    own, new = _among_others(calibration, calibration) - 1, _among_others(calibration, observed)
    others = own + (observed[:, None] >= calibration)
    usual = _smallest(others / (n + 1.0), known[0].expand(len(observed), -1, -1))
    smallest = _smallest(new / (n + 1.0), known[1])[:, None]
    rarer, equal = (usual < smallest).sum(dim=1), (usual == smallest).sum(dim=1) + 1
    place = torch.where(equal <= LARGEST_LOT * (n + 1), (places * equal).ceil().clamp_min(1), equal)
    return (rarer + place).to(torch.float64) / (n + 1)


def _without(calibration: Tensor, observed: Tensor) -> Sizes:
    return Sizes(calibration.new_empty(len(calibration), 0), observed.new_empty(len(observed), 0))


def _among_others(calibration: Tensor, observed: Tensor) -> Tensor:
    """Ranks (m, c), from 1, largest first, of observed scores among simulations and themselves."""
    ordered = calibration.sort(dim=0).values.mT.contiguous()
    return len(calibration) - torch.searchsorted(ordered, observed.mT.contiguous()).mT + 1


def _smallest(*p_values: Tensor) -> Tensor:
    """Smallest of p-values (..., c), with ties broken by a little of their mean; rounded."""
    every = torch.cat([part.to(torch.float64) for part in p_values], dim=-1)
    return ((every.amin(dim=-1) + _TIE * every.mean(dim=-1)) * _DIGITS).round()
