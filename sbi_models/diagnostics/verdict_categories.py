"""Judgement of a categorical parameter: which probabilities are wrong, in place of width and place."""

from collections.abc import Sequence
from dataclasses import replace

from sbi_models.diagnostics.metrics.categories import CategoryTest
from sbi_models.diagnostics.verdict import (
    MISCALIBRATED,
    OVER,
    UNDER,
    CategoryEstimate,
    Check,
    Estimate,
    Judgement,
)

SURE = 3.0
"""Standard errors from which stated probabilities are called too extreme, or not extreme enough."""

MOST_NAMED = 6
"""Number of categories up to which all are named in the sentence; of more, those that are most off."""


def judgement_of_categories(row: Judgement, values: Sequence[float], test: CategoryTest) -> Judgement:
    """The judgement of a parameter, with categories in place of width and place, which they do not have.

    The tests are those of any parameter, which are exact for ranks by value, too, and that of the categories.
    """
    labels: tuple[str, ...] = ()
    if row.flaws:
        labels = (OVER,) if test.lean < -SURE else (UNDER,) if test.lean > SURE else (MISCALIBRATED,)
    categories = tuple(
        CategoryEstimate(float(value), float(stated), float(true), float(p))
        for value, stated, true, p in zip(values, test.stated, test.frequency, test.p_values, strict=True)
    )
    unknown = Estimate(*[float("nan")] * 3)
    return replace(
        row,
        label=labels[0] if labels else row.label,
        flaws=labels,
        sentence=_sentence(labels, categories, row.checks, informative=row.informative),
        width_factor=unknown,
        bias=unknown,
        contraction=unknown,
        categories=categories,
    )


_WORDS = {
    OVER: "over-confident, probabilities are too extreme",
    UNDER: "under-confident, probabilities are not extreme enough",
    MISCALIBRATED: "miscalibrated, probabilities are not those of the categories",
}


def _sentence(
    labels: Sequence[str],
    categories: Sequence[CategoryEstimate],
    checks: Sequence[Check],
    *,
    informative: bool,
) -> str:
    first = _WORDS[labels[0]] if labels else "no flaw found"
    if not informative:
        first += (
            "; nothing shows that the draws know more of the truth than the prior"
            if labels
            else ", but nothing shows that more is known than by the prior"
        )
    shown = sorted(categories, key=lambda one: one.p_value)[:MOST_NAMED]
    listed = ", ".join(
        f"{one.value:g} stated {100 * one.stated:.1f} %, true {100 * one.frequency:.1f} %"
        for one in sorted(shown, key=lambda one: one.value)
    )
    rest = f" and {len(categories) - len(shown)} more" if len(categories) > len(shown) else ""
    p_values = [check.adjusted for check in checks if check.found and check.name != "information"]
    p = "" if not labels else f" (p {'< 1e-15' if min(p_values) < 1e-15 else f'= {min(p_values):.1g}'})"
    return f"{first[0].upper()}{first[1:]}; {listed}{rest}{p}."
