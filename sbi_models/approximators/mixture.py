"""Mixture weights: checked, rounded to whole draws, and learned from held-out data (stacking).

Learned weights maximize the mean log density of the mixture on held-out data over the simplex ("stacking of
predictive distributions"; Yao, Vehtari, Simpson & Gelman 2018, doi:10.1214/17-BA1091). On a hundred
simulations that fits their noise, too, and is often worse than equal weights on others; so weights may be
shrunk towards these, as if each of E members had been right about a / E simulations more: the top of sum_i
log sum_k w_k p_ik + a / E sum_k log w_k, by default with an a that cross-validation finds. Either problem is
concave: EM climbs, and the largest component of the gradient bounds how far it still is below the top.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbi_models import seeding
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.types import Array, FloatArray

_ROUNDING = 9
"""Number of decimals of a share; closer ones are a tie."""

_GAP = 1e-8
_ITERATIONS = 20_000

_FOLDS = 10
_SHRINKAGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Candidates of the shrinkage, as a share of the number of simulations."""


def checked_weights(weights: Any, names: Sequence[str]) -> dict[str, float]:
    """Weights of all members, 0 for those that are not named, which sum to 1.

    Raises:
        ConfigurationError: if they are no mapping, name unknown members, are negative or not finite, or are
            all zero.
    """
    if not isinstance(weights, Mapping):
        raise ConfigurationError(
            f"Expected member_weights as a dict of members to weights, got {weights!r}. Pass for "
            f"instance {{{names[0]!r}: 1.0}}."
        )
    values = dict.fromkeys(names, 0.0)
    for name, weight in weights.items():
        if name not in values:
            raise ConfigurationError(
                f"There is no member {name!r} to give a weight. {suggest(str(name), names)}"
            )
        values[name] = _number(name, weight)
    total = sum(values.values())
    if not total > 0 or not np.isfinite(total):
        raise ConfigurationError(
            f"Expected member_weights with a finite sum above 0, got {dict(weights)!r}. Give one "
            "member a weight of 1."
        )
    return {name: value / total for name, value in values.items()}


def _number(name: str, weight: Any) -> float:
    try:
        value = float("nan") if isinstance(weight, bool | str) else float(weight)
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value) or value < 0:
        raise ConfigurationError(
            f"Expected the weight of member {name!r} as a finite number of 0 or more, got {weight!r}."
        )
    return value


def whole_shares(weights: FloatArray, num_samples: int, num_datasets: int) -> Array:
    """Number of draws of each member for each data set, (num_datasets, members).

    The largest remainders are rounded up, the others down.

    Of equal remainders, each has its turn: which ones are rounded up goes round from one data set to the
    next.
    """
    quotas = weights * num_samples
    whole = np.floor(quotas + 10.0**-_ROUNDING).astype(int)
    shares = np.tile(whole, (num_datasets, 1))
    seats = num_samples - int(whole.sum())
    if not seats:
        return shares
    rest = np.where(weights > 0, np.round(quotas - whole, _ROUNDING), -1.0)
    last = np.sort(rest)[::-1][seats - 1]
    shares[:, rest > last] += 1
    tied, left = np.flatnonzero(rest == last), seats - int((rest > last).sum())
    turns = (np.arange(num_datasets)[:, None] * left + np.arange(left)) % len(tied)
    shares[np.arange(num_datasets)[:, None], tied[turns]] += 1
    return shares


def merged_order(shares: Array, seed: int) -> Array:
    """Which draws make up those of the mixture, shuffled, shape (num_datasets, num_samples).

    They are numbered through the members' draws side by side, of which there are `shares.max(axis=0)`.
    """
    starts = np.concatenate([[0], np.cumsum(shares.max(axis=0))[:-1]])
    rows = []
    for row, counts in enumerate(shares):
        chosen = np.concatenate(
            [start + np.arange(count) for start, count in zip(starts, counts, strict=True)]
        )
        rows.append(seeding.generator(seed, "merged draws", row).permutation(chosen))
    return np.stack(rows)


def log_mixture(log_densities: FloatArray, weights: FloatArray) -> FloatArray:
    """log sum_k w_k p_k of log densities (..., members), in nats, shape (...)."""
    used = weights > 0
    terms = log_densities[..., used] + np.log(weights[used])
    top = terms.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        mixture: FloatArray = np.log(np.exp(terms - top).sum(axis=-1)) + top[..., 0]
    return mixture


def stacked_weights(log_densities: FloatArray, shrinkage: float = 0.0) -> FloatArray:
    """Weights (members,) with the highest shrunk mean log density of `log_densities` (n, members).

    They are right to within 1e-8 nats, or, where members are so alike that 20 000 iterations do not tell them
    apart, log(members) / 20 000 (I. Csiszár & G. Tusnády, Statistics & Decisions, supplement 1, 1984).

    Rows to which no member gives any density tell nothing about weights and are left out.

    Args:
        log_densities: log densities in nats, of members at held-out parameters.
        shrinkage: a, the number of simulations that speak for equal weights; 0 is none, infinity gives equal
            weights.

    Raises:
        DataError: if no row is left.
    """
    densities = _densities(log_densities)
    members = densities.shape[1]
    weights = np.full(members, 1.0 / members)
    pull = shrinkage / len(densities)
    if np.isinf(pull):
        return weights
    for _ in range(_ITERATIONS):
        gradient = (densities / (densities @ weights)[:, None]).mean(axis=0) + (
            pull / (members * weights) if pull else 0.0
        )
        if gradient.max() - 1 - pull < _GAP:
            break
        weights = weights * gradient / (1 + pull)
        weights /= weights.sum()
    return weights


def check_shrinkage(shrinkage: float | None) -> None:
    """Raise ConfigurationError unless a shrinkage is None, or a number of 0 or more."""
    if shrinkage is not None and not (
        isinstance(shrinkage, int | float | np.integer | np.floating) and shrinkage >= 0
    ):
        raise ConfigurationError(
            f"Expected shrinkage as a number of simulations of 0 or more, or None, got {shrinkage!r}."
        )


def cross_validated_shrinkage(log_densities: FloatArray) -> float:
    """The largest shrinkage whose cross-validated log score is within one standard error of the best one.

    That is the rule of Breiman, Friedman, Olshen & Stone (1984, Classification and Regression Trees, 3.4.3),
    with 10 folds. At least one simulation a member speaks for equal weights.
    """
    densities = _densities(log_densities)
    n, members = densities.shape
    if n < 2:
        return float("inf")
    rows = np.log(densities, out=np.full(densities.shape, -np.inf), where=densities > 0)
    fold = seeding.generator(0, "folds of stacking").permutation(n) % _FOLDS
    candidates = [float("inf"), *(share * n for share in _SHRINKAGES if share * n > members), float(members)]
    scores = np.zeros((len(candidates), n))
    for k in np.unique(fold):
        for scored, shrinkage in zip(scores, candidates, strict=True):
            scored[fold == k] = log_mixture(rows[fold == k], stacked_weights(rows[fold != k], shrinkage))
    best = scores[scores.mean(axis=1).argmax()]
    behind = best - scores
    close = behind.mean(axis=1) <= behind.std(axis=1, ddof=1) / np.sqrt(n)
    return float(candidates[int(close.argmax())])


def _densities(log_densities: FloatArray) -> FloatArray:
    """Densities (n, members) of the rows that have any, each row up to a factor."""
    top = log_densities.max(axis=1, keepdims=True)
    has_density = np.isfinite(top[:, 0])
    if not has_density.any():
        raise DataError(
            "Expected validation data to which a member gives a density, got none: all lie "
            "outside the support of the adapter."
        )
    densities: FloatArray = np.exp(log_densities[has_density] - top[has_density])
    return densities
