"""Maximum mean discrepancy between two sets of draws."""

import numpy as np
from scipy.spatial.distance import cdist, pdist

from sbi_models.diagnostics.metrics.classifiers import check_pair
from sbi_models.errors import ConfigurationError


def mmd_squared(first: object, second: object, bandwidth: float | None = None) -> float:
    """Squared maximum mean discrepancy with a Gaussian kernel: 0 in expectation for equal distributions.

        E k(X, X') + E k(Y, Y') - 2 E k(X, Y),  k(x, y) = exp(-|x - y|^2 / (2 h^2))

    without bias: pairs of a draw with itself are left out, so that values may fall below 0.

    Args:
        first, second: draws, shapes (n, dim) and (m, dim), of the same space; bring parameters of different
            units to one scale first.
        bandwidth: h, in the unit of the draws; by default the median distance between draws of both sets.

    Raises:
        DataError: the arrays do not fit, are not finite, or hold fewer than 2 draws.
        ConfigurationError: a bandwidth that is not positive.

    References:
        Gretton, Borgwardt, Rasch, Schölkopf, Smola (2012), A kernel two-sample test, JMLR 13.

    >>> rng = np.random.default_rng(1)
    >>> mmd_squared(rng.normal(size=(99, 1)), rng.normal(9.0, 1.0, size=(99, 1))) > 0.1
    True
    """
    a, b = check_pair(first, second)
    width = float(np.median(pdist(np.concatenate([a, b])))) if bandwidth is None else float(bandwidth)
    if bandwidth is not None and not width > 0.0:
        raise ConfigurationError(f"Expected a positive bandwidth, got {bandwidth!r}.")
    gamma = 0.5 / width**2 if width > 0.0 else 0.0

    def kernel(x: object, y: object) -> float:
        return float(np.exp(-gamma * cdist(x, y, "sqeuclidean")).sum())

    n, m = len(a), len(b)
    return (
        (kernel(a, a) - n) / (n * (n - 1)) + (kernel(b, b) - m) / (m * (m - 1)) - 2.0 * kernel(a, b) / (n * m)
    )
