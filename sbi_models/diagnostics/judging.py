"""Computation of a verdict: tests of each parameter and of all jointly, with one false alarm rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sbi_models.arguments import known_arguments
from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite, check_level, check_samples
from sbi_models.diagnostics.metrics.information import share_like_the_prior
from sbi_models.diagnostics.variables import Flat, flatten_variables
from sbi_models.diagnostics.verdict import (
    CALIBRATED,
    CONSTANT,
    UNINFORMATIVE,
    Estimate,
    Judgement,
    Verdict,
)
from sbi_models.diagnostics.verdict_tests import VerdictTests
from sbi_models.diagnostics.verdict_words import constant_sentence, summary
from sbi_models.errors import DataError
from sbi_models.ragged import differs_in_length, real_or_ragged, with_nan
from sbi_models.seeding import check_seed

MIN_DATASETS, MIN_DRAWS = 20, 10

WIDE = 32
"""Number of conditions above which principal components, mean and sd stand for them."""

LARGE = 330
"""Power of two from which, or all below its inverse, parameters are scaled."""


@known_arguments
def judge(
    samples: object,
    truth: object,
    prior: object = None,
    variable_keys: str | Sequence[str] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    conditions: object = None,
    false_alarms: float = 0.01,
    level: float = 0.95,
    seed: int = 0,
) -> Verdict:
    """Test whether posteriors are calibrated and informative, and estimate the size of each flaw.

    The labels are calibrated, over-confident, under-confident, biased, miscalibrated, and uninformative.

    Every test is exact for a right posterior of any law, continuous or discrete, with any number of draws:
    given the pool of draws and truth, each of its S + 1 values is equally likely to be the truth, so that
    ranks of the truth (ties at random) are uniform and their normal scores independent N(0, 1), whatever else
    the pools and the data are. Of each parameter:

    - `bias`, `spread`: mean and variance of the scores; `ranks`: the simultaneous ECDF band;
    - `bias_changes`, `spread_changes`: whether place or width are wrong for some data one way and for others
      another: correlations of the scores with the means and sds of the pools, and with the conditions.

    Of all parameters jointly, in coordinates in which the pool has covariance 1:

    - `bias`: ranks along the mean error of the data sets before; `spread`, `ranks`, `spread_changes`: of the
      Mahalanobis distance; `tarp`;
    - `dependence`, `dependence_changes`: ranks of the products of two coordinates, of their sizes, and of the
      signs of three (of 25 parameters at most, taken at random); and their correlations with what is known of
      the data sets.

    Holm's method keeps the probability that any of them accuses a right approximator below `false_alarms`.
    What passes must also be shown to know more of the truth than chance does (`information`), or it is called
    uninformative: the true values stand for the prior. So it is, unless there are conditions to test that by,
    if it is the prior for a tenth of the data sets or more.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`; 20 data sets or more,
            independent, with parameters from the prior, and 10 draws or more each.
        prior: draws of the prior by variable, (n_prior, ...), or an array (n_prior, dim), raw space, for the
            contraction; without them it is measured against the true values.
        conditions: what the posteriors are conditioned on, by name or as an array, (num_datasets, ...), any
            space. Without them a posterior that disregards the data, for some data sets or for all, cannot be
            told from a right one that knows less.
        false_alarms: probability to call a right approximator flawed. Smaller is stricter with accusations,
            and misses more.
        level: coverage level of each interval.
        seed: seed of the breaking of ties and the places within ranks.

    Raises:
        DataError: the variables do not fit, are not finite, or are too few.
        ConfigurationError: a probability is not inside (0, 1), or the seed is not a non-negative integer.

    References: of each test in its metric; Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman, Vehtari
    (2023), Simulation-based calibration checking for Bayesian computation: the choice of test quantities
    shapes sensitivity, Bayesian Analysis; Holm (1979), A simple sequentially rejective multiple test
    procedure, Scand. J. Statistics 6(2).

    >>> rng = np.random.default_rng(1)
    >>> truth = rng.normal(size=(200, 1))
    >>> x = truth + rng.normal(size=(200, 1))
    >>> exact = x[:, None] / 2 + np.sqrt(0.5) * rng.normal(size=(200, 100, 1))
    >>> judge({"theta": exact}, {"theta": truth}).label
    'calibrated'
    >>> judge({"theta": x[:, None] / 2 + 0.6 * (exact - x[:, None] / 2)}, {"theta": truth}).label
    'over-confident'
    """
    flat = flatten_variables(samples, truth, variable_keys, variable_names)
    check_samples(flat.samples, flat.truth, min_datasets=MIN_DATASETS, min_draws=MIN_DRAWS)
    check_level(false_alarms), check_level(level)
    of_prior = None if prior is None else _prior_draws(prior, flat, variable_keys)
    varies = flat.truth.min(axis=0) < flat.truth.max(axis=0)
    if not varies.any():
        raise DataError(
            "Expected parameters that differ between test data, got constants only. Simulate with "
            "parameters from the prior."
        )
    draws, true = flat.samples, flat.truth
    if not varies.all():
        draws, true, of_prior = (
            draws[..., varies],
            true[:, varies],
            None if of_prior is None else of_prior[:, varies],
        )
    draws, true, of_prior = _of_usual_size(draws, true, of_prior)
    names = [name for name, there in zip(flat.names, varies, strict=True) if there]
    rows = VerdictTests(
        draws, true, of_prior, _columns(conditions, len(true)), coverage_level=level, seed=check_seed(seed)
    ).rows(names, false_alarms)
    joint = rows.pop() if len(rows) > len(names) else None
    judged = {row.name: row for row in rows}
    parameters = tuple(
        judged.get(name) or _constant(name, value)
        for name, value in zip(flat.names, flat.truth[0], strict=True)
    )
    label, n, num_draws = _overall(rows, joint), *flat.samples.shape[:2]
    ignorant = share_like_the_prior(draws, true, of_prior) if label == CALIBRATED else 0.0
    if ignorant and conditions is None:
        label = UNINFORMATIVE
    sentence = summary(label, parameters, joint, f"{n} test data sets with {num_draws} draws each", ignorant)
    return Verdict(
        label, sentence, parameters, joint, n, num_draws, ignorant, float(false_alarms), float(level)
    )


def _of_usual_size(
    draws: Floats, truth: Floats, prior: Floats | None
) -> tuple[Floats, Floats, Floats | None]:
    """Scale parameters beyond 1e100, or all below 1e-100, by a power of two, which is exact.

    Then squares neither overflow nor vanish.
    """
    largest = np.maximum(np.abs(draws).max(axis=(0, 1)), np.abs(truth).max(axis=0))
    if prior is not None:
        largest = np.maximum(largest, np.abs(prior).max(axis=0))
    exponents = np.frexp(largest)[1]
    shift = np.where(exponents > LARGE, LARGE - exponents, np.where(exponents < -LARGE, -exponents, 0))
    if not shift.any():
        return draws, truth, prior
    return np.ldexp(draws, shift), np.ldexp(truth, shift), None if prior is None else np.ldexp(prior, shift)


def _overall(rows: list[Judgement], joint: Judgement | None) -> str:
    every = [*rows, *([] if joint is None else [joint])]
    flawed = [row for row in every if row.flaws]
    if flawed:
        return min(flawed, key=lambda row: row.surest).label
    return CALIBRATED if any(row.informative for row in every) else UNINFORMATIVE


def _constant(name: str, value: float) -> Judgement:
    unknown = Estimate(*[float("nan")] * 3)
    return Judgement(
        name,
        CONSTANT,
        (),
        constant_sentence(float(value)),
        unknown,
        unknown,
        unknown,
        informative=False,
        checks=(),
    )


def _prior_draws(prior: object, flat: Flat, variable_keys: str | Sequence[str] | None) -> Floats:
    """Draws of the prior as (n_prior, dim), with the columns of the posterior draws."""
    if isinstance(prior, Mapping):
        keys = [variable_keys] if isinstance(variable_keys, str) else list(variable_keys or prior)
        missing = [key for key in keys if key not in prior]
        if missing:
            raise DataError(
                f"Expected prior draws of {missing[0]!r}, got {', '.join(map(str, prior))}. Draw "
                "all variables from the prior."
            )
        prior = np.concatenate(
            [as_floats(f"prior of {key!r}", prior[key]).reshape(len(prior[key]), -1) for key in keys], axis=1
        )
    draws = as_floats("prior", prior)
    if draws.ndim != 2 or draws.shape[1] != flat.truth.shape[1] or len(draws) < MIN_DATASETS:
        raise DataError(
            f"Expected prior draws of shape (n, {flat.truth.shape[1]}) with n of at least {MIN_DATASETS}, "
            f"got shape {draws.shape}. Pass draws of all parameters, in the order of the posterior draws."
        )
    check_finite("prior", draws)
    return draws


def _columns(conditions: object, n: int) -> Floats:
    """Conditions as (n, q): numbers of each data set, or of very many their principal components.

    Missing values are 0, with the share of missing values beside them.
    """
    if conditions is None:
        return np.zeros((n, 0))
    by_name = conditions if isinstance(conditions, Mapping) else {"conditions": conditions}
    parts = [np.zeros((n, 0))]
    for name, given in by_name.items():
        values = given
        if differs_in_length(given):
            values = with_nan(real_or_ragged(given, f"conditions {name!r}"))
        array = as_floats(f"conditions {name!r}", values)
        if array.ndim < 1 or len(array) != n:
            raise DataError(
                f"Expected conditions {name!r} of {n} data sets, got shape {array.shape}. Pass one "
                "for each data set, in their order."
            )
        rows = array.reshape(n, -1)
        missing = ~np.isfinite(rows)
        rows = np.where(missing, 0.0, rows)
        if rows.shape[1] > WIDE:
            largest = np.abs(rows).max(axis=0)
            rows = rows / np.where(largest > 0.0, largest, 1.0)
            centred = rows - rows.mean(axis=0)
            sd = centred.std(axis=0)
            left, sizes, _ = np.linalg.svd(centred / np.where(sd > 0.0, sd, 1.0), full_matrices=False)
            rows = np.concatenate(
                [(left * sizes)[:, :WIDE], rows.mean(axis=1, keepdims=True), rows.std(axis=1, keepdims=True)],
                axis=1,
            )
        parts += [rows, missing.mean(axis=1, keepdims=True)]
    return np.concatenate(parts, axis=1)
