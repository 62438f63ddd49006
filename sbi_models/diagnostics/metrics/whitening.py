"""The truth and the draws of each data set in coordinates in which the posterior has covariance 1."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbi_models.diagnostics.metrics.checks import Floats
from sbi_models.diagnostics.metrics.ranks import random_ranks_of


@dataclass(frozen=True)
class Whitened:
    """What the joint part of a verdict needs of the draws.

    truth: the truth in whitened coordinates, (n_datasets, dim); error: posterior mean minus truth in joint posterior sds, (n_datasets,
    dim); axis_ranks: the rank of the truth along each whitened axis, (n_datasets, dim), ties broken at random; distances: squared
    Mahalanobis distances of the draws, (n_datasets, S); parameters: how many of them are not fixed by others.
    """

    truth: Floats
    error: Floats
    axis_ranks: NDArray[np.int64]
    distances: Floats
    parameters: int

    def joint_ranks(self, rng: np.random.Generator, *, centred: bool = False) -> NDArray[np.int64]:
        """How many draws lie nearer the mean than the truth, 0, ..., S, (n_datasets,): uniform if the posterior is right.

        `centred` takes out the mean error first, so that the ranks tell of the width alone; the factor sqrt(n / (n - 1)) keeps the
        squared distance as large as it was in expectation.
        """
        at = self.truth
        if centred:
            at = (at - at.mean(axis=0)) * np.sqrt(len(at) / (len(at) - 1))
        return random_ranks_of(self.distances[..., None], np.sum(at**2, axis=1)[:, None], rng)[:, 0]


def whiten(draws: Floats, truth: Floats, rng: np.random.Generator) -> Whitened:
    """Whitens every data set by mean m and covariance C of the pool of its draws and its truth: y = C^(-1/2) (x - m).

    The pool makes truth and draws exchangeable if the posterior is right, so that all ranks are exactly uniform. C^(-1/2) is the
    symmetric root of the pseudo-inverse, after scaling each parameter to unit variance: it moves smoothly with the data, and constants
    or copies do no harm.

    Args:
        draws: (n_datasets, S, dim) with S > dim + 1, raw space.
        truth: (n_datasets, dim), raw space.
        rng: of places among ties.
    """
    n, num_draws, dim = draws.shape
    chunk = max(1, 200_000 // (num_draws * dim))
    parts = [_whiten(draws[start : start + chunk], truth[start : start + chunk], rng) for start in range(0, n, chunk)]
    at, ranks, distances, kept = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Whitened(at, _errors(at, num_draws), ranks, distances, int(kept.max()))


def _whiten(draws: Floats, truth: Floats, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    pool = np.concatenate([draws, truth[:, None, :]], axis=1)
    pool -= pool.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.mean(pool**2, axis=1, keepdims=True))
    pool /= np.where(scale > 0.0, scale, 1.0)
    values, vectors = np.linalg.eigh(np.matmul(pool.transpose(0, 2, 1), pool) / pool.shape[1])
    kept = values > 1e-10 * values[:, -1:]
    inverse_root = np.where(kept, 1.0 / np.sqrt(np.where(kept, values, 1.0)), 0.0)
    white = np.matmul(pool, np.matmul(vectors * inverse_root[:, None, :], vectors.transpose(0, 2, 1)))
    at = white[:, -1]
    ranks = random_ranks_of(white[:, :-1], at, rng)
    return at, ranks, np.einsum("nsd,nsd->ns", white[:, :-1], white[:, :-1]), kept.sum(axis=1)


def _errors(whitened_truth: Floats, num_draws: int) -> Floats:
    """Posterior mean minus truth in sds of the draws alone (ddof = 1), from those of the pool with the truth (ddof = 0).

    By the formula of Sherman and Morrison: with P the squared distance in the pool, q = P / (S^2 / (S + 1) - P S / (S + 1)) is the
    squared distance over S - 1.
    """
    pooled = np.sum(whitened_truth**2, axis=1)
    room = np.maximum(num_draws - pooled, 1e-9 * num_draws)
    squared = (num_draws - 1) * pooled * (num_draws + 1) / (num_draws * room)
    scale = np.sqrt(squared / np.where(pooled > 0.0, pooled, 1.0))
    errors: Floats = -whitened_truth * scale[:, None]
    return errors
