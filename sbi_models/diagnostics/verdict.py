"""Verdict on an approximator: flaws of its posteriors with size, p-value, and a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

CALIBRATED, UNINFORMATIVE, CONSTANT = "calibrated", "uninformative", "constant"
OVER, UNDER, BIASED, MISCALIBRATED = "over-confident", "under-confident", "biased", "miscalibrated"
LABELS = (CALIBRATED, OVER, UNDER, BIASED, MISCALIBRATED, UNINFORMATIVE, CONSTANT)
"""Labels of a parameter, or of all jointly.

- over-confident, under-confident: posteriors too narrow, too wide;
- biased: too high or too low, jointly off to one side;
- miscalibrated: right in place and width, but not in form (tails, skewness, dependence), or wrong in ways
  that cancel on average;
- uninformative: calibrated, but nothing shows that the draws know more of the truth than the prior does, for
  all or for many data sets;
- constant: the test data hold one value only, so there is nothing to judge;
- calibrated: none of these.
"""


@dataclass(frozen=True)
class Estimate:
    """Number with its interval; NaN if undefined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """JSON content; None for numbers that are not finite."""
        return {name: _plain(getattr(self, name)) for name in ("value", "low", "high")}


@dataclass(frozen=True)
class Check:
    """One test of one flaw.

    Attributes:
        name: bias, spread, ranks, bias_changes, spread_changes, categories, tarp, dependence,
            dependence_changes, or information.
        statistic: test statistic of the metric.
        p_value: p-value of this test alone.
        adjusted: p-value after Holm's method for all tests of the verdict (those of information among
            themselves).
        found: True if `adjusted` is at most `false_alarms`.
    """

    name: str
    statistic: float
    p_value: float
    adjusted: float
    found: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        return {
            "statistic": _plain(self.statistic),
            "p_value": _plain(self.p_value),
            "adjusted_p_value": _plain(self.adjusted),
            "found": self.found,
        }


@dataclass(frozen=True)
class CategoryEstimate:
    """How often a category was stated, and how often it was true.

    Attributes:
        value: value of the category.
        stated: mean posterior probability over the test data sets.
        frequency: share of the test data sets where it is true.
        p_value: p-value of the exact tests of it, see `metrics.category_tests`.
    """

    value: float
    stated: float
    frequency: float
    p_value: float

    def as_dict(self) -> dict[str, float | None]:
        """JSON content."""
        return {name: _plain(getattr(self, name)) for name in ("value", "stated", "frequency", "p_value")}


@dataclass(frozen=True)
class Judgement:
    """Verdict on one parameter, or on all jointly.

    Attributes:
        name: name of the parameter, or "jointly".
        label: one of `LABELS`, the flaw with the smallest p-value.
        flaws: all detected flaws, smallest p-value first.
        sentence: the judgement in words.
        width_factor: factor by which posterior sds should be multiplied.
        bias: posterior mean minus truth in posterior sds; jointly the length of that vector.
        contraction: mean posterior contraction; None jointly.
        informative: True if the draws are shown to have information beyond the prior.
        checks: all tests.
        categories: verdicts of each category of a categorical parameter, which has neither width nor place.
    """

    name: str
    label: str
    flaws: tuple[str, ...]
    sentence: str
    width_factor: Estimate
    bias: Estimate
    contraction: Estimate | None
    informative: bool
    checks: tuple[Check, ...]
    categories: tuple[CategoryEstimate, ...] = ()

    @property
    def surest(self) -> float:
        """Smallest p-value of tests that detected a flaw; 1 if none did."""
        return min(
            (check.p_value for check in self.checks if check.found and check.name != "information"),
            default=1.0,
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON content."""
        categories = {"categories": [one.as_dict() for one in self.categories]} if self.categories else {}
        return categories | {
            "label": self.label,
            "flaws": list(self.flaws),
            "sentence": self.sentence,
            "width_factor": self.width_factor.as_dict(),
            "bias_in_posterior_sds": self.bias.as_dict(),
            "contraction": None if self.contraction is None else self.contraction.as_dict(),
            "informative": self.informative,
            "tests": {check.name: check.as_dict() for check in self.checks},
        }


@dataclass(frozen=True)
class Verdict:
    """Verdict of test simulations on an approximator; returned by `judge` and by `verdict` of a workflow.

    Attributes:
        label: label of the parameter, or of all jointly, whose flaw has the smallest p-value; without a flaw
            `uninformative` if no parameter is informative, or if `prior_share` was not tested by conditions,
            else `calibrated`.
        sentence: the verdict in words.
        parameters: judgement of each parameter.
        joint: judgement of all parameters jointly; None for one parameter, or with too few draws.
        num_datasets, num_draws: numbers of test data sets, and of draws of each.
        prior_share: share of data sets whose draws cannot be distinguished from the prior, if others can,
            there is no flaw, and they are a tenth or more; else 0.
        false_alarms: false alarm rate, the probability that a right approximator is called flawed.
        level: coverage level of each interval.
    """

    label: str
    sentence: str
    parameters: tuple[Judgement, ...]
    joint: Judgement | None
    num_datasets: int
    num_draws: int
    prior_share: float
    false_alarms: float
    level: float

    @property
    def is_calibrated(self) -> bool:
        """True if no flaw was detected and the posteriors are informative."""
        return self.label == CALIBRATED

    @property
    def labels(self) -> dict[str, str]:
        """Label of each parameter by name."""
        return {judgement.name: judgement.label for judgement in self.parameters}

    def as_dict(self) -> dict[str, Any]:
        """JSON content, without NaN and infinity."""
        return {
            "label": self.label,
            "sentence": self.sentence,
            "is_calibrated": self.is_calibrated,
            "num_datasets": self.num_datasets,
            "num_draws": self.num_draws,
            "prior_share": self.prior_share,
            "false_alarms": self.false_alarms,
            "interval_level": self.level,
            "parameters": {judgement.name: judgement.as_dict() for judgement in self.parameters},
            "joint": None if self.joint is None else self.joint.as_dict(),
        }

    def __str__(self) -> str:
        rows = [*self.parameters, *([] if self.joint is None else [self.joint])]
        return "\n".join([self.sentence, *(f"  {row.name}: {row.sentence}" for row in rows)])


def _plain(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
