"""Convergence of Markov chains: rank-normalized R-hat and effective number of draws.

A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, Rank-normalization, folding, and localization:
an improved R-hat for assessing convergence of MCMC, Bayesian Analysis 16 (2021), arXiv:1903.08008.
"""

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from sbi_models.diagnostics.metrics.checks import Floats, as_floats
from sbi_models.errors import DataError

_FEWEST_DRAWS = 4


def rank_normalized_r_hat(draws: object) -> Floats:
    """R-hat of split chains: the larger one of rank-normalized draws and of folded ones; 1 where they agree.

    Args:
        draws: (..., chains, draws), at least 4 draws of each chain.

    Returns:
        R-hat of each of the leading axes, (...); infinite where chains do not move.

    >>> draws = np.random.default_rng(1).normal(size=(4, 500))
    >>> apart = draws + [[0], [0], [0], [2]]
    >>> bool(rank_normalized_r_hat(draws) < 1.02), bool(rank_normalized_r_hat(apart) > 1.2)
    (True, True)
    """
    halves = _split(_checked(draws))
    folded = np.abs(halves - np.median(halves, axis=(-2, -1), keepdims=True))
    result: Floats = np.maximum(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(folded)))
    return result


def effective_draws(draws: object) -> Floats:
    """Effective number of draws for the bulk of a distribution (bulk-ESS), of split, rank-normalized chains.

    Args:
        draws: (..., chains, draws), at least 4 draws of each chain.

    Returns:
        Effective numbers of each of the leading axes, (...); 0 where chains do not move.

    >>> draws = np.random.default_rng(1).normal(size=(4, 500))
    >>> bool(1500 < effective_draws(draws) < 2500)
    True
    """
    scores = _normal_scores(_split(_checked(draws)))
    *lead, chains, length = scores.shape
    flat = scores.reshape(-1, chains, length)
    covariances = _autocovariances(flat).mean(axis=1)
    within = covariances[:, 0] * length / (length - 1)
    variance = covariances[:, 0] + (flat.mean(axis=2).var(axis=1, ddof=1) if chains > 1 else 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations = 1 - (within[:, None] - covariances) / variance[:, None]
    correlations[:, 0] = 1.0
    numbers = [
        _effective(row, chains * length) if spread > 0 else 0.0
        for row, spread in zip(correlations, variance, strict=True)
    ]
    return np.array(numbers).reshape(lead)


def _checked(draws: object) -> Floats:
    values = as_floats("draws", draws)
    if values.ndim < 2 or values.shape[-1] < _FEWEST_DRAWS or not np.isfinite(values).all():
        raise DataError(
            f"Expected finite draws of shape (..., chains, draws), of at least {_FEWEST_DRAWS} draws a "
            f"chain, got shape {values.shape}."
        )
    return values


def _split(draws: Floats) -> Floats:
    """Halves of chains as chains, without the middle draw of an odd number."""
    half = draws.shape[-1] // 2
    return np.concatenate([draws[..., :half], draws[..., -half:]], axis=-2)


def _normal_scores(draws: Floats) -> Floats:
    """Normal scores of the ranks among all draws of all chains; ties have their mean rank."""
    flat = draws.reshape(*draws.shape[:-2], -1)
    ranks = rankdata(flat, axis=-1)
    scores: Floats = ndtri((ranks - 0.375) / (flat.shape[-1] + 0.25)).reshape(draws.shape)
    return scores


def _r_hat(draws: Floats) -> Floats:
    length = draws.shape[-1]
    between = draws.mean(axis=-1).var(axis=-1, ddof=1)
    within = draws.var(axis=-1, ddof=1).mean(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.sqrt((length - 1) / length + between / within)
    return np.where(within > 0, ratio, np.inf)


def _autocovariances(draws: Floats) -> Floats:
    """Autocovariances (..., length), by the fast Fourier transform."""
    length = draws.shape[-1]
    centred = draws - draws.mean(axis=-1, keepdims=True)
    spectrum = np.fft.rfft(centred, n=2 * length, axis=-1)
    result: Floats = np.fft.irfft(np.abs(spectrum) ** 2, axis=-1)[..., :length] / length
    return result


def _effective(correlations: Floats, total: int) -> float:
    """Effective number of draws by Geyer's initial monotone sequence of pairs of autocorrelations."""
    pairs = correlations[: len(correlations) // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    positive = pairs[: negative[0]] if len(negative) else pairs
    monotone = np.minimum.accumulate(positive)
    time = -1 + 2 * float(monotone.sum())
    return float(total / max(time, 1 / np.log10(total)))
