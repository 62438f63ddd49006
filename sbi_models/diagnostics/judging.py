"""Computation of a verdict: tests of each parameter and of all jointly, with one false alarm rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sbi_models.arguments import known_arguments
from sbi_models.diagnostics.metrics.calibration import uniformity_test
from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite, check_level, check_samples
from sbi_models.diagnostics.metrics.effects import (
    Interval,
    bias_in_sds,
    joint_bias_in_sds,
    joint_width_factor,
    mean_contraction,
    width_factor,
)
from sbi_models.diagnostics.metrics.information import information_of, share_like_the_prior
from sbi_models.diagnostics.metrics.normal_scores import (
    bias_test,
    change_test,
    features_of,
    normal_scores,
    outward,
    spread_test,
)
from sbi_models.diagnostics.metrics.pools import JointPools, pooled
from sbi_models.diagnostics.metrics.ranks import random_ranks_of
from sbi_models.diagnostics.variables import Flat, flatten_variables
from sbi_models.diagnostics.verdict import (
    BIASED,
    CALIBRATED,
    CONSTANT,
    MISCALIBRATED,
    OVER,
    UNDER,
    UNINFORMATIVE,
    Check,
    Estimate,
    Judgement,
    Verdict,
)
from sbi_models.diagnostics.verdict_words import constant_sentence, sentence_of, summary
from sbi_models.errors import DataError
from sbi_models.seeding import check_seed, generator

MIN_DATASETS, MIN_DRAWS = 20, 10

LEAN = 3.0
"""Standard errors of the mean width error from which all parameters jointly are called too narrow or wide."""

WIDE = 32
"""Number of conditions above which principal components, mean and sd stand for them."""

LARGE = 330
"""Power of two from which, or all below its inverse, parameters are scaled."""

Tests = dict[str, tuple[float, float]]
"""Statistic and p-value by name."""


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
        samples, truth, variable_keys, variable_names: as for `flatten_variables`; 20 data sets or more,
            independent, with parameters from the prior, and 10 draws or more each.
        prior: draws of the prior by variable, (n_prior, ...), or an array (n_prior, dim), raw space, for the
            contraction; without them it is measured against the true values.
        conditions: what the posteriors are conditioned on, by name or as an array, (num_datasets, ...), any
            space. Without them a posterior that disregards the data, for some data sets or for all, cannot be
            told from a right one that knows less.
        false_alarms: probability to call a right approximator flawed. Smaller is stricter with accusations,
            and misses more.
        level: level of the intervals, each for itself.
        seed: seed of the breaking of ties and the places within ranks.

    Raises:
        DataError: the variables do not fit, are not finite, or are too few.
        ConfigurationError: a probability is not inside (0, 1), or the seed is not a non-negative integer.

    References: of each test in its metric; Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman, Vehtari
    (2023), Simulation-based calibration checking for Bayesian computation: the choice of test quantities
    shapes sensitivity, Bayesian Analysis; Holm (1979), A simple sequentially rejective multiple test
    procedure, Scand. J. Statistics 6(2).
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
    rows = _Court(
        draws, true, of_prior, _columns(conditions, len(true)), level=level, seed=check_seed(seed)
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


class _Court:
    """The tests and estimates of checked draws (n, S, dim) and true values (n, dim), all of which vary."""

    def __init__(
        self,
        draws: Floats,
        truth: Floats,
        prior: Floats | None,
        conditions: Floats,
        *,
        level: float,
        seed: int,
    ) -> None:
        self.draws, self.truth, self.prior, self.level, self.seed = draws, truth, prior, level, seed
        self.num_draws = draws.shape[1]
        self.pools, self.jointly = pooled(draws, truth, generator(seed, "diagnostics", "pools"))
        self.features = features_of(np.concatenate([self.pools.place, self.pools.width, conditions], axis=1))
        ranks = random_ranks_of(draws, truth, generator(seed, "diagnostics", "ties"))
        self.scores = normal_scores(ranks, self.num_draws, generator(seed, "diagnostics", "places"))
        self.ranks = ranks

    def rows(self, names: list[str], false_alarms: float) -> list[Judgement]:
        """Judgements of every parameter, and of all jointly if there are two or more and enough draws."""
        tests, effects = self._marginal()
        if self.jointly is not None:
            of_all, effect = self._joint(self.jointly)
            tests, effects, names = [*tests, of_all], [*effects, effect], [*names, "jointly"]
        gains, p_values = information_of(self.draws, self.truth)
        knows = [("information", float(gain), float(p)) for gain, p in zip(gains, p_values, strict=True)][
            : len(names)
        ]
        flaws = [(name, *values) for row in tests for name, values in row.items()]
        checks, known = iter(_holm(flaws, false_alarms)), _holm(knows, false_alarms)
        return [
            _judgement(name, [next(checks) for _ in row], of_row, knowledge, self._lean())
            for name, row, of_row, knowledge in zip(names, tests, effects, known, strict=True)
        ]

    def _marginal(self) -> tuple[list[Tests], list[list[Estimate]]]:
        by_name = {
            "spread": spread_test(self.scores),
            "bias": bias_test(self.scores),
            "ranks": uniformity_test((self.ranks + 0.5) / (self.num_draws + 1), self.num_draws),
            "bias_changes": change_test(self.scores, self.features),
            "spread_changes": change_test(outward(self.scores), self.features),
        }
        tests = [
            {name: (float(statistic[j]), float(p_value[j])) for name, (statistic, p_value) in by_name.items()}
            for j in range(self.scores.shape[1])
        ]
        pools = self.pools
        z = np.where(_dead(pools.dead, self.num_draws), np.nan, pools.errors)
        of_widths = width_factor(z, pools.second, pools.fourth, self.level)
        of_means = bias_in_sds(z, self.level)
        contraction = mean_contraction(self.draws.var(axis=1, ddof=1), self.truth, self.prior, self.level)
        per_effect = [_estimates(interval) for interval in (of_widths, of_means, contraction)]
        return tests, [list(row) for row in zip(*per_effect, strict=True)]

    def _joint(self, pools: JointPools) -> tuple[Tests, list[Estimate]]:
        rng = generator(self.seed, "diagnostics", "jointly")
        outwards = normal_scores(pools.distance, self.num_draws, rng)
        along = normal_scores(pools.along, self.num_draws, rng)
        uniform = np.stack([pools.distance, pools.ball], axis=1)
        gammas, p_uniform = uniformity_test((uniform + 0.5) / (self.num_draws + 1), self.num_draws)
        t, p_bias = bias_test(along)
        features = np.concatenate([self.features, features_of(pools.bonds)], axis=1)
        tests: Tests = {
            "spread": _single(bias_test(outwards[:, None])),
            "bias": (float(t), float(p_bias / 2.0 if t > 0.0 else 1.0 - p_bias / 2.0)),
            "ranks": (float(gammas[0]), float(p_uniform[0])),
            "tarp": (float(gammas[1]), float(p_uniform[1])),
            "spread_changes": _single(change_test(outwards[:, None], self.features)),
            "dependence": _smallest(
                *(
                    bias_test(scores)
                    for scores in (pools.pairs, pools.sizes, pools.triples)
                    if scores.shape[1]
                )
            ),
            "dependence_changes": _smallest(change_test(pools.pairs, features)),
        }
        width = joint_width_factor(pools.errors, pools.second, pools.fourth, self.level)
        bias = joint_bias_in_sds(pools.errors, pools.parameters, self.level)
        return tests, [*_estimates(width), *_estimates(bias)]

    def _lean(self) -> float:
        """Mean width error of single parameters in standard errors: above 0 if posteriors are too narrow."""
        beyond = np.mean((self.scores - self.scores.mean(axis=0)) ** 2, axis=1) - 1.0
        return float(beyond.mean() / max(beyond.std(ddof=1) / np.sqrt(len(beyond)), 1e-300))


def _judgement(
    name: str, checks: list[Check], effects: list[Estimate], knowledge: Check, lean: float
) -> Judgement:
    width, bias, contraction = effects[0], effects[1], effects[2] if len(effects) == 3 else None
    labels = _flaws(
        {check.name: check for check in checks if check.found},
        width,
        bias,
        None if contraction is not None else lean,
    )
    label = labels[0] if labels else (CALIBRATED if knowledge.found else UNINFORMATIVE)
    sentence = sentence_of(labels, width, bias, contraction, informative=knowledge.found, checks=checks)
    return Judgement(
        name, label, labels, sentence, width, bias, contraction, knowledge.found, (*checks, knowledge)
    )


def _flaws(found: dict[str, Check], width: Estimate, bias: Estimate, lean: float | None) -> tuple[str, ...]:
    """Words for the rejected tests, smallest p-value first.

    Width and place are named where the estimate agrees with the ranks.

    Ranks alone are moved by a wrong form, too: tails or skewness make them lean where the mean and the sd are
    right. Jointly (with a `lean`) too narrow or too wide is said only if single parameters are so on average;
    all else that moves the Mahalanobis distance is the dependence between them, or a bias.
    """
    told = []
    if "spread" in found:
        narrow = (
            found["spread"].statistic > (1.0 if lean is None else 0.0) or width.value != width.value
        )  # NaN: draws are all equal
        refuted = width.low <= 1.0 if narrow else width.high >= 1.0
        if lean is not None:
            refuted |= lean < LEAN if narrow else lean > -LEAN
        if not refuted:
            told.append((found["spread"].p_value, OVER if narrow else UNDER))
    if "bias" in found and not (lean is None and bias.low <= 0.0 <= bias.high):
        told.append((found["bias"].p_value, BIASED))
    if found and not told:
        told.append((0.0, MISCALIBRATED))
    return tuple(label for _, label in sorted(told, key=lambda flaw: flaw[0]))


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


def _dead(dead: NDArray[np.bool_], num_draws: int) -> NDArray[np.bool_]:
    """Mask of parameters without a usable sd, whose draws are too often all equal.

    Right posteriors of few values have equal draws in some data sets; the mask is where that is too many.
    """
    expected = len(dead) / (num_draws + 1)
    beyond: NDArray[np.bool_] = dead.sum(axis=0) > expected + 4.0 * np.sqrt(expected)
    return beyond


def _single(test: tuple[Floats, Floats]) -> tuple[float, float]:
    return float(test[0][0]), float(test[1][0])


def _smallest(*families: tuple[Floats, Floats]) -> tuple[float, float]:
    """Smallest of many p-values with Bonferroni's bound.

    Each family has an equal share of the level, and each of its tests an equal share of that.
    """
    statistics = np.concatenate([statistic for statistic, _ in families])
    p_values = np.concatenate([p * len(p) * len(families) for _, p in families])
    best = int(p_values.argmin())
    return float(statistics[best]), min(float(p_values[best]), 1.0)


def _holm(tests: list[tuple[str, float, float]], false_alarms: float) -> list[Check]:
    """Tests (name, statistic, p-value) with p-values adjusted for their number by Holm's method."""
    p_values = np.array([p for *_, p in tests])
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(tests), 0, -1))
    adjusted = np.empty(len(tests))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [
        Check(name, float(statistic), float(p), float(corrected), bool(corrected <= false_alarms))
        for (name, statistic, p), corrected in zip(tests, adjusted, strict=True)
    ]


def _estimates(interval: Interval) -> list[Estimate]:
    parts = [np.atleast_1d(part) for part in interval]
    return [Estimate(*map(float, values)) for values in zip(*parts, strict=True)]


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
    for name, values in by_name.items():
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
