"""Ranks of true values among posterior draws."""

import numpy as np
from numpy.typing import NDArray

from sbi_models.diagnostics.metrics.checks import Floats, check_samples
from sbi_models.seeding import generator


def fractional_ranks(samples: object, truth: object) -> Floats:
    """Fractional rank of each true value in the pool of itself and its S draws.

    It is uniform if the posterior is right.

        u = (#{draw < truth} + (#{draw = truth} + 1) / 2) / (S + 1)

    The truth ties with itself, hence the + 1. For a continuous posterior that is right, u is exactly uniform
    on the midpoints (k + 1/2) / (S + 1), k = 0..S, for any number of draws. Half of the ties count as below,
    so no direction is favoured; a discrete parameter with many ties gives ranks that are less spread than
    uniform: tests of uniformity take `random_ranks`.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.

    Returns:
        Ranks, shape (num_datasets, dim), strictly between 0 and 1, no unit.

    Raises:
        DataError: the arrays do not fit or are not finite.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman (2018), Validating Bayesian inference algorithms with
        simulation-based calibration, arXiv:1804.06788.

    >>> fractional_ranks([[[1.0], [2.0], [4.0]]], [[3.0]])  # two of three draws below: third of four slots
    array([[0.625]])
    """
    return ranks_of(*check_samples(samples, truth))


def random_ranks(samples: object, truth: object, seed: int = 0) -> NDArray[np.int64]:
    """Number of draws below each true value, with random ties.

    It is exactly uniform on 0, ..., S if the posterior is right.

    A truth that equals t draws takes each of the t + 1 places among them with the same probability, so that
    ranks of discrete parameters, or of draws that were rounded, are uniform too, which `fractional_ranks` are
    not.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space.
        truth: true values, shape (num_datasets, dim), raw space.
        seed: seed of the places among ties; without ties it does not matter.

    Returns:
        Integers 0, ..., S of shape (num_datasets, dim).

    Raises:
        DataError: the arrays do not fit or are not finite.

    References:
        Talts et al. (2018), as for `fractional_ranks`; Czado, Gneiting, Held (2009), Predictive model
        assessment for count data, Biometrics 65(4), for the randomised probability integral transform.

    >>> random_ranks([[[1.0], [2.0], [4.0]]], [[3.0]])
    array([[2]])
    """
    return random_ranks_of(*check_samples(samples, truth), generator(seed, "diagnostics", "ties"))


def random_ranks_of(draws: Floats, truth: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """`random_ranks` of validated arrays."""
    below, ties = _below_and_equal(draws, truth)
    return below + rng.integers(0, ties + 1)


def even_ranks(draws: Floats, truth: Floats, seed: int = 0) -> Floats:
    """Midpoints (k + 1/2) / (S + 1) of `random_ranks` of validated arrays: uniform for a right posterior."""
    ranks: Floats = (random_ranks_of(draws, truth, generator(seed, "diagnostics", "ties")) + 0.5) / (
        draws.shape[1] + 1
    )
    return ranks


def place_of(values: Floats, place: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rank 0, ..., S of the value at a place, (n,), in its row, (n, S + 1), with random ties: (n,)."""
    target = values[np.arange(len(values)), place][:, None]
    below, equal = np.count_nonzero(values < target, axis=1), np.count_nonzero(values == target, axis=1)
    ranks: NDArray[np.int64] = below + rng.integers(0, equal)
    return ranks


def ranks_of(draws: Floats, truth: Floats) -> Floats:
    """`fractional_ranks` of validated arrays."""
    below, ties = _below_and_equal(draws, truth)
    ranks: Floats = (below + 0.5 * (ties + 1)) / (draws.shape[1] + 1)
    return ranks


def _below_and_equal(draws: Floats, truth: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of draws below the truth, and number equal to it, (num_datasets, dim) each."""
    target = truth[:, None, :]
    return np.count_nonzero(draws < target, axis=1), np.count_nonzero(draws == target, axis=1)
