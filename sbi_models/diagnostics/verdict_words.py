"""Sentences of a verdict."""

from collections.abc import Sequence
from math import log

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
)

VAGUE = 10.0
"""Ratio of the interval ends of a width above which it is not stated, as for tails without a variance."""


def sentence_of(
    flaws: Sequence[str],
    width: Estimate,
    bias: Estimate,
    contraction: Estimate | None,
    *,
    informative: bool,
    checks: Sequence[Check],
) -> str:
    """Sentence about one parameter, or about all jointly (without a contraction): flaws and their size."""
    jointly = contraction is None
    phrases = [_flaw(flaw, width, bias, checks, jointly=jointly) for flaw in flaws]
    if not flaws:
        phrases = [
            "no flaw found"
            if informative
            else "no flaw found, but nothing shows that more is known than by the prior"
        ]
        if _known(width) and _known(bias):
            off = f"at most {bias.high:.2f}" if jointly else f"{_signed(bias.low)} to {_signed(bias.high)}"
            phrases.append(
                f"right sds may be {width.low:.2f} to {width.high:.2f} times these, means off by "
                f"{off} posterior sds"
            )
        else:
            phrases.append(
                "there is no posterior sd to measure by, as the draws of many data sets are all equal"
            )
        if leaning := _leaning(width, bias, jointly=jointly):
            phrases.append(f"{leaning}, which more test data would prove or refute")
    elif not informative:
        phrases.append("nothing shows that the draws know more of the truth than the prior")
    if (
        contraction is not None
        and _known(contraction)
        and (1.0 - contraction.low) <= VAGUE * (1.0 - contraction.high)
    ):
        phrases.append(
            f"{_minus(f'{100 * contraction.value:.0f}')} % of the prior variance gone "
            f"({_range(contraction, percent=True)})"
        )
    sentence = "; ".join(phrases) + "."
    if flaws:
        p_value = min(check.adjusted for check in checks if check.found and check.name != "information")
        sentence = f"{sentence[:-1]} (p {'< 1e-15' if p_value < 1e-15 else f'= {p_value:.1g}'})."
    return sentence[0].upper() + sentence[1:]


def _flaw(flaw: str, width: Estimate, bias: Estimate, checks: Sequence[Check], *, jointly: bool) -> str:
    if flaw in (OVER, UNDER):
        cure = (
            f"multiply sds by {width.value:.2f} ({_range(width)})"
            if _known(width)
            else "the draws of some data sets are all equal"
        )
        return f"{flaw}, posteriors are too {'narrow' if flaw == OVER else 'wide'}: {cure}"
    if flaw == BIASED and _known(bias):
        if jointly:
            return (
                f"biased, posterior means lie {bias.value:.2f} joint posterior sds ({_range(bias)}) "
                "off to one side"
            )
        return (
            f"biased, posteriors lie {abs(bias.value):.2f} posterior sds too "
            f"{'high' if bias.value > 0 else 'low'} ({_range(bias)})"
        )
    if flaw == MISCALIBRATED:
        return f"miscalibrated, {_form(checks)}"
    return flaw


FORMS = {
    "dependence": "the dependence between parameters is wrong",
    "dependence_changes": "the dependence between parameters is wrong in ways that change with the data",
    "bias_changes": "too high for some data and too low for others",
    "spread_changes": "too narrow for some data and too wide for others",
}
"""Phrases for the tests of form."""


def _form(checks: Sequence[Check]) -> str:
    """Sentence about a wrong form, if neither place nor width are wrong on average."""
    phrases = [FORMS[check.name] for check in checks if check.found and check.name in FORMS]
    return (
        " and ".join(phrases)
        if phrases
        else "the form of the posteriors is wrong, such as tails, skewness or dependence"
    )


def _leaning(width: Estimate, bias: Estimate, *, jointly: bool) -> str:
    """Sentence about estimates without a rejected test.

    Right values lie outside of intervals that are half as wide again.
    """
    phrases = []
    if width.low > 0.0 and abs(log(width.value)) > 0.75 * log(width.high / width.low):
        phrases.append("narrow" if width.value > 1.0 else "wide")
    if not jointly and abs(bias.value) > 0.75 * (bias.high - bias.low):
        phrases.append("high" if bias.value > 0.0 else "low")
    return f"posteriors look too {' and too '.join(phrases)}" if phrases else ""


def summary(
    label: str, parameters: Sequence[Judgement], joint: Judgement | None, basis: str, ignorant: float
) -> str:
    """Sentence about the whole verdict.

    `ignorant` is the share of data sets whose draws cannot be distinguished from the prior.
    """
    silent = [row.name for row in parameters if row.label == UNINFORMATIVE]
    if label == CALIBRATED:
        rest = f", but nothing is learnt about {_listed(silent)}" if silent else ""
        rows = {row.name: row for row in parameters} | ({} if joint is None else {"all jointly": joint})
        doubtful = [
            name for name, row in rows.items() if _leaning(row.width_factor, row.bias, jointly=row is joint)
        ]
        rest += (
            f"; more of them would tell whether something is off with {_listed(doubtful)}" if doubtful else ""
        )
        rest += (
            f"; for {100 * ignorant:.0f} % of them the draws are no more than the prior, and the "
            "data no more either"
            if ignorant
            else ""
        )
        return f"Calibrated: {basis} show no flaw{rest}."
    if label == UNINFORMATIVE and ignorant:
        return (
            f"Uninformative: of {basis}, {100 * ignorant:.0f} % have draws that are no more than the prior. "
            "Pass conditions to test whether the data tell more."
        )
    if label == UNINFORMATIVE:
        return f"Uninformative: {basis} do not show that the posteriors differ from the prior."
    by_label: dict[str, list[str]] = {}
    for row in [*parameters, *([] if joint is None else [joint])]:
        for flaw in row.flaws:
            by_label.setdefault(flaw, []).append(row.name if row is not joint else "all jointly")
    phrases = [
        f"{flaw} ({_listed(names)})"
        for flaw, names in sorted(by_label.items(), key=lambda item: item[0] != label)
    ]
    whole = " and ".join(phrases)
    return f"{whole[0].upper()}{whole[1:]}, by {basis}."


def constant_sentence(value: float) -> str:
    """Sentence about a constant parameter."""
    return (
        f"{CONSTANT.capitalize()}: it is {value:.6g} in all test data, so that there is nothing to "
        "judge. Draw it from its prior."
    )


def _known(estimate: Estimate) -> bool:
    """True for a number that is not NaN."""
    return estimate.value == estimate.value


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _minus(number: str) -> str:
    return number.replace("-", "−")


def _signed(number: float) -> str:
    return _minus(f"{number:+.2f}")


def _range(estimate: Estimate, *, percent: bool = False) -> str:
    low, high = (f"{100 * end:.0f}" if percent else f"{end:.2f}" for end in (estimate.low, estimate.high))
    return _minus(f"{low} to {high}")
