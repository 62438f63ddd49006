"""Disagreement of several posteriors of the same data set, such as those of ensemble members."""

import numpy as np
from scipy.spatial.distance import cdist

from sbi_models.diagnostics.metrics.checks import Floats, as_floats
from sbi_models.errors import DataError


def jensen_shannon_divergence(log_densities: object, weights: object = None) -> Floats:
    """Generalized Jensen-Shannon divergence of each data set, in nats, shape (num_datasets,).

    sum_k w_k KL(p_k || p), with the mixture p = sum_k w_k p_k: what a draw of the mixture tells about the
    member that it came from. It lies between 0 (all agree) and the entropy of the weights (no overlap): log 2
    = 0.69 for two equal weights. It is estimated as the mean over draws of the mixture of KL(r || w), with
    the shares r_k = w_k p_k / p of the members at a draw: no estimate is negative.

    Reference: Lin (1991), Divergence measures based on the Shannon entropy, IEEE Transactions on Information
    Theory 37(1).

    Args:
        log_densities: densities of every member at draws of every member, in nats: (num_datasets, drawn from,
            num_samples, density of). Any space will do if it is the same for all members.
        weights: weights of the members, (members,); equal by default.

    Raises:
        DataError: the arrays do not fit.
    """
    values = as_floats("log_densities", log_densities)
    if values.ndim != 4 or values.shape[1] != values.shape[3] or not values.size:
        raise DataError(
            "Expected log_densities of shape (num_datasets, members, num_samples, members), got "
            f"{values.shape}."
        )
    w = _weights(weights, values.shape[1])
    used = w > 0
    joint = values[:, used][..., used] + np.log(w[used])
    top = joint.max(axis=-1, keepdims=True)
    if np.isnan(top).any() or not np.isfinite(top).all():
        raise DataError("Expected a finite log density of at least one member at every draw, got NaN or inf.")
    shares = np.exp(joint - top)
    shares /= shares.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * (np.log(shares) - np.log(w[used])), 0.0)
    divergence: Floats = terms.sum(axis=-1).mean(axis=-1) @ w[used]
    return np.maximum(divergence, 0.0)  # rounding


def energy_disagreement(samples: object, weights: object = None) -> Floats:
    """Share of the mean distance of two draws of the mixture that is due to different members.

    It has shape (num_datasets,).

    1 - sum_k w_k E|X_k - X_k'| / E|X - X'|, with draws X_k of member k and X of the mixture, each parameter
    in units of its standard deviation in the mixture. In expectation it lies between 0, where all members
    agree, and 1, where each is a point of its own; estimates of both distances are unbiased, so that
    agreement gives values around 0, some of them negative.

    Reference: Székely & Rizzo (2013), Energy statistics, Journal of Statistical Planning and Inference
    143(8).

    Args:
        samples: draws of every member, (num_datasets, members, num_samples, dim), with 2 draws or more.
        weights: weights of the members, (members,); equal by default.

    Raises:
        DataError: the arrays do not fit.

    >>> draws = np.random.default_rng(1).normal(size=(1, 3, 200, 1))
    >>> apart = draws + 9.0 * np.arange(3)[:, None, None]
    >>> bool(energy_disagreement(draws)[0] < 0.02), bool(energy_disagreement(apart)[0] > 0.3)
    (True, True)
    """
    draws = as_floats("samples", samples)
    if draws.ndim != 4 or draws.shape[2] < 2 or not draws.size or not np.isfinite(draws).all():
        raise DataError(
            "Expected finite samples of shape (num_datasets, members, 2 or more draws, dim), got "
            f"shape {draws.shape}."
        )
    return np.array([_energy_of_one(of_members, _weights(weights, draws.shape[1])) for of_members in draws])


def _energy_of_one(draws: Floats, weights: Floats) -> float:
    """Energy disagreement for draws (members, num_samples, dim) of one data set."""
    members, num_samples, dim = draws.shape
    mean = np.einsum("k,kd->d", weights, draws.mean(axis=1))
    sd = np.sqrt(np.einsum("k,kd->d", weights, ((draws - mean) ** 2).mean(axis=1)))
    flat = (draws / np.where(sd > 0, sd, 1.0)).reshape(-1, dim)
    sums = cdist(flat, flat).reshape(members, num_samples, members, num_samples).sum(axis=(1, 3))
    pairs = np.full((members, members), float(num_samples**2))
    np.fill_diagonal(pairs, num_samples * (num_samples - 1))
    distances = sums / pairs
    total = float(weights @ distances @ weights)
    return 1.0 - float(weights @ np.diag(distances)) / total if total > 0 else 0.0


def _weights(weights: object, members: int) -> Floats:
    if weights is None:
        return np.full(members, 1.0 / members)
    values = as_floats("weights", weights)
    if (
        values.shape != (members,)
        or not np.isfinite(values).all()
        or (values < 0).any()
        or not values.sum() > 0
    ):
        raise DataError(f"Expected {members} weights of 0 or more, one for each member, got {values}.")
    normalized: Floats = values / values.sum()
    return normalized
