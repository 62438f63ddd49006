"""Tests and effect sizes behind a verdict, for each parameter and for all jointly."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from sbi_models.diagnostics.metrics.calibration import uniformity_test
from sbi_models.diagnostics.metrics.categories import category_tests
from sbi_models.diagnostics.metrics.checks import Floats
from sbi_models.diagnostics.metrics.effects import (
    Interval,
    bias_in_sds,
    joint_bias_in_sds,
    joint_width_factor,
    mean_contraction,
    width_factor,
)
from sbi_models.diagnostics.metrics.information import information_of
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
from sbi_models.diagnostics.verdict import (
    BIASED,
    CALIBRATED,
    MISCALIBRATED,
    OVER,
    UNDER,
    UNINFORMATIVE,
    Check,
    Estimate,
    Judgement,
)
from sbi_models.diagnostics.verdict_categories import judgement_of_categories
from sbi_models.diagnostics.verdict_words import sentence_of
from sbi_models.seeding import generator

LEAN = 3.0
"""Standard errors of the mean width error from which all parameters jointly are called too narrow or wide."""

Tests = dict[str, tuple[float, float]]
"""Statistic and p-value by name."""


class VerdictTests:
    """The tests and estimates of checked draws (n, S, dim) and true values (n, dim), all of which vary."""

    def __init__(
        self,
        draws: Floats,
        truth: Floats,
        prior: Floats | None,
        conditions: Floats,
        *,
        coverage_level: float,
        seed: int,
        categories: Mapping[int, Sequence[float]] = MappingProxyType({}),
    ) -> None:
        self.draws, self.truth, self.prior, self.coverage_level, self.seed = (
            draws,
            truth,
            prior,
            coverage_level,
            seed,
        )
        self.num_draws = draws.shape[1]
        self.categories = categories
        self.category_tests = {
            j: category_tests(draws[..., j], truth[:, j], values) for j, values in categories.items()
        }
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
        rows = [
            _judgement(name, [next(checks) for _ in row], of_row, knowledge, self._lean())
            for name, row, of_row, knowledge in zip(names, tests, effects, known, strict=True)
        ]
        for j, test in self.category_tests.items():
            rows[j] = judgement_of_categories(rows[j], self.categories[j], test)
        return rows

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
        for j, test in self.category_tests.items():
            tests[j]["categories"] = (test.lean, test.p_value)
        pools = self.pools
        z = np.where(_dead(pools.dead, self.num_draws), np.nan, pools.errors)
        of_widths = width_factor(z, pools.second, pools.fourth, self.coverage_level)
        of_means = bias_in_sds(z, self.coverage_level)
        contraction = mean_contraction(
            self.draws.var(axis=1, ddof=1), self.truth, self.prior, self.coverage_level
        )
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
        width = joint_width_factor(pools.errors, pools.second, pools.fourth, self.coverage_level)
        bias = joint_bias_in_sds(pools.errors, pools.parameters, self.coverage_level)
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


def _flaws(
    rejected: dict[str, Check], width: Estimate, bias: Estimate, lean: float | None
) -> tuple[str, ...]:
    """Words for the rejected tests, smallest p-value first.

    Width and place are named where the estimate agrees with the ranks.

    Ranks alone are moved by a wrong form, too: tails or skewness make them lean where the mean and the sd are
    right. Jointly (with a `lean`) too narrow or too wide is said only if single parameters are so on average;
    all else that moves the Mahalanobis distance is the dependence between them, or a bias.
    """
    words = []
    if "spread" in rejected:
        narrow = (
            rejected["spread"].statistic > (1.0 if lean is None else 0.0) or width.value != width.value
        )  # NaN: draws are all equal
        refuted = width.low <= 1.0 if narrow else width.high >= 1.0
        if lean is not None:
            refuted |= lean < LEAN if narrow else lean > -LEAN
        if not refuted:
            words.append((rejected["spread"].p_value, OVER if narrow else UNDER))
    if "bias" in rejected and not (lean is None and bias.low <= 0.0 <= bias.high):
        words.append((rejected["bias"].p_value, BIASED))
    if rejected and not words:
        words.append((0.0, MISCALIBRATED))
    return tuple(label for _, label in sorted(words, key=lambda flaw: flaw[0]))


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
