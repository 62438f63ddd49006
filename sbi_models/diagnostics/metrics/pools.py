"""Pools of draws and truth of each data set, and ranks of the truth in them, for exact tests.

If a posterior is right, the truth is one more of its draws. Given the S + 1 values without their order, each
is then equally likely to be the truth, whatever the law: continuous or discrete, with or without moments, in
any dimension. So the rank of the truth by any function of a value and its pool is uniform on 0, ..., S,
independently over data sets, and independent of everything that the pools tell without saying which value is
the truth. The truth has a random place in its pool, so that not even rounding can tell it from the draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from sbi_models.diagnostics.metrics.checks import Floats
from sbi_models.diagnostics.metrics.normal_scores import normal_scores
from sbi_models.diagnostics.metrics.ranks import place_of

FAR = 20.0
"""Limit of distances from the median in mean absolute deviations, so that moments of a pool exist."""

OUT = 1e100
"""Limit of distances from a random point, in sds, so that their squares are finite."""

GROSS = 50.0
"""Squared distance per parameter, in posterior sds, beyond which a pool with its truth cannot measure it."""

MOST = 25
"""Number of randomly chosen parameters whose dependence is tested: 300 pairs, 2 300 triples."""

FEW = 200
"""Draws among which products of coordinates are ranked, at most 254; more would hardly add power."""

Integers = NDArray[np.int64]
Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class Pools:
    """Rank statistics of each parameter in its pools, shapes (num_datasets, dim).

    Attributes:
        errors: posterior mean minus truth in posterior sds, minus its average over the pool, or NaN.
        second, fourth: averages of the square and fourth power of `errors` over the pool, which are the
            expectations for a right posterior of any law.
        place, width: mean and sd of the pool, raw units.
        dead: True if all draws are equal, and not equal to the truth.
    """

    errors: Floats
    second: Floats
    fourth: Floats
    place: Floats
    width: Floats
    dead: NDArray[np.bool_]


@dataclass(frozen=True)
class JointPools:
    """Rank statistics of all parameters jointly, in coordinates in which each pool has covariance 1.

    Attributes:
        errors: errors as in `Pools`, (num_datasets, dim), in joint posterior sds.
        second, fourth: second and fourth moments of the errors' lengths, (num_datasets,).
        parameters: number of parameters that are not determined by others.
        distance, ball, along: ranks of the truth, (num_datasets,), by Mahalanobis distance, by the distance
            to a random point (TARP), and along the mean error of the earlier data sets.
        pairs: normal scores of the ranks of products of two coordinates, (num_datasets, number).
        sizes: normal scores of the ranks of products of a centred size with another one, or with a
            coordinate, (num_datasets, number).
        triples: normal scores of the ranks of products of three signs, (num_datasets, number).
        bonds: correlations of the pairs in the pool.
    """

    errors: Floats
    second: Floats
    fourth: Floats
    parameters: int
    distance: Integers
    ball: Integers
    along: Integers
    pairs: Floats
    sizes: Floats
    triples: Floats
    bonds: Floats


def pooled(draws: Floats, truth: Floats, rng: np.random.Generator) -> tuple[Pools, JointPools | None]:
    """Pools of draws (n, S, dim) and truth (n, dim), raw space.

    Joint pools are computed for two parameters or more and S > dim + 2.
    """
    n, num_draws, dim = draws.shape
    jointly = dim > 1 and num_draws > dim + 2
    places = rng.integers(0, min(num_draws, FEW) + 1, n)
    joint = _Jointly(draws, truth, rng) if jointly else None
    parts = []
    for rows, pool in _chunks(draws, truth, places):
        standard, place, width = _standardized(pool)
        parts.append((*_errors(standard, standard * standard, places[rows], 1), place, width))
        if joint is not None:
            joint.add(rows, pool, standard, places[rows])
    errors, second, fourth, far, expected, place, width = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    constant = draws.min(axis=1) == draws.max(axis=1)
    for j in np.flatnonzero(_gross(far, expected)):
        errors[:, j : j + 1], second[:, j], fourth[:, j] = _plain_errors(
            draws[..., j : j + 1], truth[:, j : j + 1]
        )
        errors[constant[:, j], j] = np.nan
    pools = Pools(
        np.where(width > 0.0, errors, np.nan), second, fourth, place, width, constant & (draws[:, 0] != truth)
    )
    return pools, None if joint is None else joint.done(draws, truth)


class _Jointly:
    """Accumulator of joint statistics over chunks of pools."""

    def __init__(self, draws: Floats, truth: Floats, rng: np.random.Generator) -> None:
        n, num_draws, dim = draws.shape
        self.num_draws, self.rng = num_draws, rng
        chosen = np.sort(rng.choice(dim, MOST, replace=False)) if dim > MOST else np.arange(dim)
        self.pairs = list(combinations(range(len(chosen)), 2))
        self.chosen = chosen
        which, other = rng.integers(0, num_draws + 1, n), np.roll(np.arange(n), -1)
        self.points = np.where(
            (which == num_draws)[:, None], truth, draws[np.arange(n), np.minimum(which, num_draws - 1)]
        )[other]
        sd = self.points.std(axis=0)
        self.units = np.where(sd > 0.0, sd, 1.0)
        self.pull = np.zeros(dim)
        self.parts: list[tuple[NDArray[np.generic], ...]] = []

    def add(self, rows: slice, pool: Floats, standard: Floats, places: Integers) -> None:
        """Add a chunk: pools and standardized pools, (c, dim, S + 1), and places of the truth, (c,)."""
        white, correlation, free = _whitened(standard)
        at = _taken(white, places)
        squared = np.einsum("cds,cds->cs", white, white)
        before = self.pull + np.cumsum(at, axis=0) - at
        self.pull = self.pull + at.sum(axis=0)
        balls = np.sum(
            np.clip((pool - self.points[rows, :, None]) / self.units[:, None], -OUT, OUT) ** 2, axis=1
        )
        some, num_chosen = white[:, self.chosen, : FEW + 1].astype(np.float32), len(self.chosen)
        left, right = np.array(self.pairs).T
        sizes = np.abs(some)
        sizes -= sizes.mean(axis=2, keepdims=True)
        self.parts.append(
            (
                *(
                    part[:, 0] if part.shape[1:] == (1,) else part
                    for part in _errors(white, squared[:, None], places, max(int(free.max()), 1))
                ),
                free,
                place_of(squared, places, self.rng),
                place_of(balls, places, self.rng),
                place_of(np.einsum("cds,cd->cs", white, before), places, self.rng),
                self._products(some, some, places),
                np.concatenate(
                    [self._products(a, b, places) for a, b in ((sizes, sizes), (some, sizes), (sizes, some))],
                    axis=1,
                ),
                self._triples(np.where(some > 0.0, 1.0, -1.0).astype(np.float32), places)
                if num_chosen > 2
                else np.zeros((len(at), 0)),
                correlation[:, self.chosen[left], self.chosen[right]],
            )
        )

    def done(self, draws: Floats, truth: Floats) -> JointPools:
        """Joint statistics of all chunks."""
        errors, second, fourth, far, expected, free, *rest = (
            np.concatenate(part) for part in zip(*self.parts, strict=True)
        )
        if _gross(far, expected):
            errors, second, fourth = _plain_errors(draws, truth)
        return JointPools(errors, second, fourth, max(int(free.max()), 1), *rest)

    def _products(self, one: Floats32, other: Floats32, places: Integers) -> Floats:
        """Normal scores of ranks of products of two coordinates in different columns.

        Products have shape (c, number, up to `FEW` + 1).
        """
        each, ranks = np.arange(len(one)), []
        for j in range(one.shape[1] - 1):
            products = one[:, j, None] * other[:, j + 1 :]
            at = products[each, :, places][:, :, None]
            below, equal = (
                np.einsum("cks->ck", found.view(np.uint8)) for found in (products < at, products == at)
            )
            ranks.append(below + self.rng.integers(0, equal.astype(np.int64)))
        return normal_scores(np.concatenate(ranks, axis=1), one.shape[2] - 1, self.rng)

    def _triples(self, signs: Floats32, places: Integers) -> Floats:
        """Normal scores of ranks of products of three signs.

        Products of signs have two values, so that their shares are enough: one product of matrices for all
        triples.
        """
        left, right = np.array(self.pairs).T
        doubles = signs[:, left] * signs[:, right]
        pair, third = np.nonzero(np.arange(signs.shape[1]) > right[:, None])
        mean = (
            np.matmul(doubles, signs.transpose(0, 2, 1))[:, pair, third].astype(np.float64) / signs.shape[2]
        )
        positive = (_taken(doubles, places)[:, pair] * _taken(signs, places)[:, third]) > 0.0
        negative_share = (1.0 - mean) / 2.0
        place = np.clip(self.rng.random(positive.shape), 1e-12, 1.0 - 1e-12)
        scores: Floats = ndtri(
            np.where(positive, negative_share + place * (1.0 - negative_share), place * negative_share)
        )
        return scores


def _chunks(draws: Floats, truth: Floats, places: Integers) -> Iterator[tuple[slice, Floats]]:
    """Iterate over data sets in chunks, to bound memory: rows, and pools (c, dim, S + 1) with the truth."""
    n, num_draws, dim = draws.shape
    size = max(1, 200_000 // (num_draws * dim))
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        pool = np.empty((rows.stop - start, dim, num_draws + 1))
        pool[..., :num_draws] = draws[rows].transpose(0, 2, 1)
        each = np.arange(len(pool))
        pool[..., num_draws] = pool[each, :, np.minimum(places[rows], num_draws - 1)]
        pool[each, :, places[rows]] = truth[rows]
        yield rows, pool


def _standardized(pool: Floats) -> tuple[Floats, Floats, Floats]:
    """Pools (c, dim, S + 1) with mean 0 and sd 1, and the mean and sd removed; 0 if constant.

    Values beyond `FAR` are moved there first.
    """
    middle = pool.shape[2] // 2
    median = np.partition(pool, middle, axis=2)[..., middle, None]
    moved = pool - median
    deviation = np.mean(np.abs(moved), axis=2, keepdims=True)
    moved /= np.where(deviation > 0.0, deviation, 1.0)
    np.clip(moved, -FAR, FAR, out=moved)
    mean = moved.mean(axis=2, keepdims=True)
    moved -= mean
    sd = np.sqrt(np.mean(moved**2, axis=2, keepdims=True))
    moved /= np.where(sd > 0.0, sd, 1.0)
    return moved, (median + mean * deviation)[..., 0], (sd * deviation)[..., 0]


def _whitened(standard: Floats) -> tuple[Floats, Floats, Integers]:
    """Coordinates of covariance 1, pool correlations, (c, dim, dim), and number of free parameters, (c,).

    By the symmetric root of the pseudo-inverse: it moves smoothly with the data, each coordinate stays near
    its parameter, and constants or copies do no harm.
    """
    correlation = np.matmul(standard, standard.transpose(0, 2, 1)) / standard.shape[2]
    values, vectors = np.linalg.eigh(correlation)
    free = values > 1e-10 * values[:, -1:]
    inverse_root = np.where(free, 1.0 / np.sqrt(np.where(free, values, 1.0)), 0.0)
    return (
        np.matmul(np.matmul(vectors * inverse_root[:, None, :], vectors.transpose(0, 2, 1)), standard),
        correlation,
        free.sum(axis=1),
    )


def _taken(values: NDArray[np.floating], places: Integers) -> Floats:
    """Values of the truth: (c, number, S + 1) -> (c, number)."""
    taken: Floats = values[np.arange(len(values)), :, places].astype(np.float64, copy=False)
    return taken


def _errors(
    values: Floats, squared: Floats, places: Integers, dim: int
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_], Floats]:
    """Posterior mean minus truth in sds of the draws alone (ddof = 1), from whitened pools.

    Pools have shape (c, number, S + 1) and covariance 1.

    By the formula of Sherman and Morrison, q = P (S^2 - 1) / (S (S - P)), with P the squared length in the
    pool; P is at most S, and taken as at most halfway from its mean, dim, to S where it divides, so that a
    draw of a law with rare outliers, or of few values, does not outweigh all others. What is so for the truth
    is so for each value of the pool: their averages are what a right posterior of any law has as
    expectations, and are taken out of the mean.

    Returns:
        Errors (c, number); averages over the pool of their squared lengths, and of these squared, (c, 1) or
        (c, number), as `squared`; whether P of the truth is too large to be measured, and for what share of
        the pool it is.
    """
    num_draws = squared.shape[2] - 1
    most = (num_draws + dim) / 2.0
    factor = (num_draws**2 - 1.0) / (num_draws * (num_draws - np.minimum(squared, most)))
    lengths = squared * factor
    np.sqrt(factor, out=factor)
    mean = np.mean(values * factor, axis=2)
    off = np.sum(mean**2, axis=1, keepdims=True) if squared.shape[1] == 1 else mean**2
    second = lengths.mean(axis=2) - off
    far = squared > min(most, GROSS * dim)
    fourth = np.einsum("cds,cds->cd", lengths, lengths) / (num_draws + 1)
    return (
        mean - _taken(values, places) * _taken(factor, places),
        second,
        fourth,
        _taken(far, places) > 0.0,
        far.mean(axis=2),
    )


def _gross(far: NDArray[np.bool_], expected: Floats) -> NDArray[np.bool_]:
    """Mask of columns whose truths exceed the range of `_errors` more often than for a right posterior."""
    mean = expected.sum(axis=0)
    beyond: NDArray[np.bool_] = far.sum(axis=0) > mean + 4.0 * np.sqrt(mean) + 4.0
    return beyond


def _plain_errors(draws: Floats, truth: Floats) -> tuple[Floats, Floats, Floats]:
    """Errors as of `_errors` for very wrong posteriors, by a normal approximation of draws (n, S, dim)."""
    n, num_draws, dim = draws.shape
    mean, sd = draws.mean(axis=1), draws.std(axis=1, ddof=1)
    sd = np.where(sd > 0.0, sd, np.inf)
    errors = (mean - truth) / sd
    if dim > 1:
        scaled = (draws - mean[:, None]) / sd[:, None]
        values, vectors = np.linalg.eigh(np.matmul(scaled.transpose(0, 2, 1), scaled) / (num_draws - 1))
        roots = np.where(values > 1e-10 * values[:, -1:], 1.0 / np.sqrt(np.maximum(values, 1e-300)), 0.0)
        errors = np.einsum("nij,nj,nkj,nk->ni", vectors, roots, vectors, errors, optimize=True)
        errors[~roots.any(axis=1)] = np.nan
    second = np.full(
        n, dim * (num_draws + 1.0) * (num_draws - 1.0) / (num_draws * max(num_draws - dim - 2.0, 1.0))
    )
    return errors, second, second**2 * (1.0 + 2.0 / dim)
