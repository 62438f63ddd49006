"""From draws and true values to a verdict: tests of every parameter and of all jointly, with one guard against false alarms for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sbi_models.arguments import known_arguments
from sbi_models.diagnostics.metrics.calibration import uniformity_test
from sbi_models.diagnostics.metrics.checks import Floats, as_floats, check_finite, check_level, check_samples
from sbi_models.diagnostics.metrics.contraction import z_scores
from sbi_models.diagnostics.metrics.effects import (
    Interval,
    bias_in_sds,
    joint_bias_in_sds,
    joint_width_factor,
    mean_contraction,
    width_factor,
)
from sbi_models.diagnostics.metrics.information import information_of
from sbi_models.diagnostics.metrics.normal_scores import bias_test, joint_bias_test, normal_scores, spread_test
from sbi_models.diagnostics.metrics.ranks import random_ranks_of
from sbi_models.diagnostics.metrics.tarp import tarp_ranks
from sbi_models.diagnostics.metrics.whitening import whiten
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
from sbi_models.seeding import check_seed, derive, generator

MIN_DATASETS, MIN_DRAWS = 20, 10

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
    false_alarms: float = 0.01,
    level: float = 0.95,
    seed: int = 0,
) -> Verdict:
    """Whether posteriors are calibrated, over-confident, under-confident, biased, otherwise wrong, or no more than the prior.

    Each parameter has three tests on the ranks of the truth among the draws, ties broken at random, all exact for a right posterior of
    any form: the mean of its normal scores (`bias`), their variance (`spread`), and the simultaneous ECDF band (`ranks`). All parameters
    together have four: Hotelling's on normal scores along whitened axes (`bias`), the rank of the Mahalanobis distance with the mean error
    taken out (`spread`; not quite exact, as the mean error is estimated), that rank as it is (`ranks`), and TARP (`tarp`). Holm's
    method keeps the probability that any of them accuses a right approximator below `false_alarms`. What passes must also be shown to
    know more of the truth than chance does (`information`), or it is called uninformative: the true values stand for the prior.

    Args:
        samples, truth, variable_keys, variable_names: as for `flatten_variables`; 20 data sets or more, independent, with parameters from
            the prior, and 10 draws or more each.
        prior: draws of the prior by variable, (n_prior, ...), or an array (n_prior, dim), raw space, for the contraction; without them
            it is measured against the true values.
        false_alarms: probability to call a right approximator flawed. Smaller is stricter with accusations, and misses more.
        level: of the intervals, each for itself.
        seed: of the breaking of ties and the places within ranks.

    Raises:
        DataError: the variables do not fit, are not finite, or are too few.
        ConfigurationError: a probability is not inside (0, 1), or the seed is not a non-negative integer.

    References: of each test in its metric; Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6(2).
    """
    flat = flatten_variables(samples, truth, variable_keys, variable_names)
    check_samples(flat.samples, flat.truth, min_datasets=MIN_DATASETS, min_draws=MIN_DRAWS)
    check_level(false_alarms), check_level(level)
    of_prior = None if prior is None else _prior_draws(prior, flat, variable_keys)
    varies = np.ptp(flat.truth, axis=0) > 0.0
    if not varies.any():
        raise DataError("Expected parameters that differ between test data, got constants only. Simulate with parameters from the prior.")
    draws, true = flat.samples, flat.truth
    if not varies.all():
        draws, true, of_prior = draws[..., varies], true[:, varies], None if of_prior is None else of_prior[:, varies]
    names = [name for name, there in zip(flat.names, varies, strict=True) if there]
    rows = _Court(draws, true, of_prior, level, check_seed(seed)).rows(names, false_alarms)
    joint = rows.pop() if len(rows) > len(names) else None
    judged = {row.name: row for row in rows}
    parameters = tuple(judged.get(name) or _constant(name, value) for name, value in zip(flat.names, flat.truth[0], strict=True))
    label = _overall(rows, joint)
    n, num_draws, _ = flat.samples.shape
    sentence = summary(label, parameters, joint, n, num_draws)
    return Verdict(label, sentence, parameters, joint, n, num_draws, float(false_alarms), float(level))


class _Court:
    """The tests and estimates of checked draws (n, S, dim) and true values (n, dim), all of which vary."""

    def __init__(self, draws: Floats, truth: Floats, prior: Floats | None, level: float, seed: int) -> None:
        self.draws, self.truth, self.prior, self.level, self.seed = draws, truth, prior, level, seed
        self.num_draws = draws.shape[1]

    def rows(self, names: list[str], false_alarms: float) -> list[Judgement]:
        """Judgements of every parameter, and of all jointly if there are two or more and draws enough."""
        tests, effects = self._marginal()
        dim = len(names)
        if dim > 1 and self.num_draws > dim + 2:
            of_all, effect = self._joint()
            tests, effects, names = [*tests, of_all], [*effects, effect], [*names, "jointly"]
        gains, p_values = information_of(self.draws, self.truth)
        knows = [("information", float(gain), float(p)) for gain, p in zip(gains, p_values, strict=True)][: len(names)]
        flaws = [(name, *values) for row in tests for name, values in row.items()]
        checks, known = iter(_holm(flaws, false_alarms)), _holm(knows, false_alarms)
        return [
            _judgement(name, [next(checks) for _ in row], of_row, knowledge)
            for name, row, of_row, knowledge in zip(names, tests, effects, known, strict=True)
        ]

    def _marginal(self) -> tuple[list[Tests], list[list[Estimate]]]:
        ranks = random_ranks_of(self.draws, self.truth, generator(self.seed, "diagnostics", "ties"))
        scores = normal_scores(ranks, self.num_draws, generator(self.seed, "diagnostics", "places"))
        uniform = uniformity_test((ranks + 0.5) / (self.num_draws + 1), self.num_draws)
        tests = [
            {"spread": (spread, p_spread), "bias": (bias, p_bias), "ranks": (gamma, p_ranks)}
            for spread, p_spread, bias, p_bias, gamma, p_ranks in zip(*spread_test(scores), *bias_test(scores), *uniform, strict=True)
        ]
        z = z_scores(self.draws, self.truth)
        z = np.where(np.isfinite(z).all(axis=0), z, np.nan)  # draws of a data set are all equal: no sd to measure by
        of_widths, of_means = width_factor(z, self.num_draws, self.level), bias_in_sds(z, self.level)
        contraction = mean_contraction(self.draws.var(axis=1, ddof=1), self.truth, self.prior, self.level)
        per_effect = [_estimates(interval) for interval in (of_widths, of_means, contraction)]
        return tests, [list(row) for row in zip(*per_effect, strict=True)]

    def _joint(self) -> tuple[Tests, list[Estimate]]:
        rng = generator(self.seed, "diagnostics", "jointly")
        white = whiten(self.draws, self.truth, rng)
        outward = normal_scores(white.joint_ranks(rng, centred=True), self.num_draws, rng)
        t, p_spread = bias_test(outward)
        distances = white.joint_ranks(rng)
        balls = tarp_ranks(self.draws, self.truth, seed=derive(self.seed, "tarp"))
        gammas, p_uniform = uniformity_test((np.stack([distances, balls], axis=1) + 0.5) / (self.num_draws + 1), self.num_draws)
        tests: Tests = {
            "spread": (float(t), float(p_spread)),
            "bias": joint_bias_test(normal_scores(white.axis_ranks, self.num_draws, rng)),
            "ranks": (gammas[0], p_uniform[0]),
            "tarp": (gammas[1], p_uniform[1]),
        }
        width = joint_width_factor(white.error, self.num_draws, white.parameters, self.level)
        bias = joint_bias_in_sds(white.error, white.parameters, self.level)
        return tests, [*_estimates(width), *_estimates(bias)]


def _judgement(name: str, checks: list[Check], effects: list[Estimate], knowledge: Check) -> Judgement:
    found = {check.name: check for check in checks if check.found}
    right = 1.0 if _is_marginal(effects) else 0.0
    flaws = []
    if "spread" in found:
        flaws.append((found["spread"].p_value, OVER if found["spread"].statistic > right else UNDER))
    if "bias" in found:
        flaws.append((found["bias"].p_value, BIASED))
    if found and not flaws:
        flaws.append((0.0, MISCALIBRATED))
    labels = tuple(label for _, label in sorted(flaws, key=lambda flaw: flaw[0]))
    width, bias, contraction = effects[0], effects[1], effects[2] if _is_marginal(effects) else None
    label = labels[0] if labels else (CALIBRATED if knowledge.found else UNINFORMATIVE)
    sentence = sentence_of(labels, width, bias, contraction, informative=knowledge.found, checks=checks)
    return Judgement(name, label, labels, sentence, width, bias, contraction, knowledge.found, (*checks, knowledge))


def _is_marginal(effects: list[Estimate]) -> bool:
    """Marginal rows have a contraction, and the variance 1 of right normal scores as statistic of spread; joint ones a t of mean 0."""
    return len(effects) == 3


def _overall(rows: list[Judgement], joint: Judgement | None) -> str:
    every = [*rows, *([] if joint is None else [joint])]
    flawed = [row for row in every if row.flaws]
    if flawed:
        return min(flawed, key=lambda row: row.surest).label
    return CALIBRATED if any(row.informative for row in every) else UNINFORMATIVE


def _constant(name: str, value: float) -> Judgement:
    unknown = Estimate(*[float("nan")] * 3)
    return Judgement(name, CONSTANT, (), constant_sentence(float(value)), unknown, unknown, unknown, informative=False, checks=())


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
            raise DataError(f"Expected prior draws of {missing[0]!r}, got {', '.join(map(str, prior))}. Draw all variables from the prior.")
        prior = np.concatenate([as_floats(f"prior of {key!r}", prior[key]).reshape(len(prior[key]), -1) for key in keys], axis=1)
    draws = as_floats("prior", prior)
    if draws.ndim != 2 or draws.shape[1] != flat.truth.shape[1] or len(draws) < MIN_DATASETS:
        raise DataError(
            f"Expected prior draws of shape (n, {flat.truth.shape[1]}) with n of at least {MIN_DATASETS}, got shape {draws.shape}. "
            "Pass draws of all parameters, in the order of the posterior draws."
        )
    check_finite("prior", draws)
    return draws
