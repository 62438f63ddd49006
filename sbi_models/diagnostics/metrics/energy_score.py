"""Energy score: a proper score of posterior draws."""

import numpy as np
from scipy.spatial.distance import cdist, pdist

from sbi_models.diagnostics.metrics.checks import Floats, check_samples


def energy_score(samples: object, truth: object, *, scaled: bool = True) -> Floats:
    """Energy score of each data set, smaller is better; for one parameter it is the CRPS.

    The CRPS is the continuous ranked probability score.

        mean_s |draw_s - truth| - 1/2 mean_{s != t} |draw_s - draw_t|

    The posterior that is right has the smallest expectation. It needs no density, so that all approximators
    can be compared by it.

    Args:
        samples: posterior draws, shape (num_datasets, S, dim), raw space, S >= 2.
        truth: true values, shape (num_datasets, dim), raw space.
        scaled: each parameter in units of the sd of its true values, so that units do not matter; False for
            raw units.

    Returns:
        Shape (num_datasets,), in those units; single ones may fall below 0.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 draws, or one data set that is
            to be scaled.

    References:
        Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation, JASA 102(477).

    >>> energy_score([[[1.0], [3.0]], [[1.0], [1.0]]], [[2.0], [1.0]]).tolist()
    [0.0, 0.0]
    """
    draws, true = check_samples(samples, truth, min_draws=2, min_datasets=2 if scaled else 1)
    if scaled:
        sd = np.where(np.ptp(true, axis=0) > 0.0, true.std(axis=0), 1.0)
        draws, true = draws / sd, true / sd
    return np.array(
        [
            cdist(of_one, one[None]).mean() - 0.5 * pdist(of_one).mean()
            for of_one, one in zip(draws, true, strict=True)
        ]
    )
