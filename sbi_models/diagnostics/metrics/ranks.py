"""Where each true value falls among its posterior draws."""

import numpy as np

from sbi_models.diagnostics.metrics.checks import Floats, check_samples


def fractional_ranks(samples: object, truth: object) -> Floats:
    """The rank of each true value in the pool of itself and its S draws, as a fraction: uniform if the posterior is right.

        u = (#{draw < truth} + (#{draw = truth} + 1) / 2) / (S + 1)

    The truth ties with itself, hence the + 1. For a continuous posterior that is right, u is exactly uniform on the midpoints
    (k + 1/2) / (S + 1), k = 0..S, for any number of draws. Half of the ties count as below, so no direction is favoured;
    a discrete parameter with many ties gives ranks that are less spread than uniform.

    Args:
        samples: posterior draws, shape (n_datasets, S, dim), raw space.
        truth: true values, shape (n_datasets, dim), raw space.

    Returns:
        Ranks, shape (n_datasets, dim), strictly between 0 and 1, no unit.

    Raises:
        DataError: the arrays do not fit or are not finite.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman (2018), Validating Bayesian inference algorithms with simulation-based
        calibration, arXiv:1804.06788.

    >>> fractional_ranks([[[1.0], [2.0], [4.0]]], [[3.0]])  # two of three draws below: third of four slots
    array([[0.625]])
    """
    return ranks_of(*check_samples(samples, truth))


def ranks_of(draws: Floats, truth: Floats) -> Floats:
    """`fractional_ranks` of arrays that have been checked."""
    target = truth[:, None, :]
    below = np.count_nonzero(draws < target, axis=1)
    ties = np.count_nonzero(draws == target, axis=1)
    ranks: Floats = (below + 0.5 * (ties + 1)) / (draws.shape[1] + 1)
    return ranks
