"""The tables of the page of a run, as rows of texts: numbers with as many digits as say something."""

from collections.abc import Iterable, Mapping, Sequence
from math import floor, isfinite, log10
from typing import Any

from sbi_models.approximators.certificates.certificate import LEVEL, p_in_words
from sbi_models.pipeline.member_runs import of_member
from sbi_models.pipeline.report.posteriors import MEAN_ERROR, SD_RATIO
from sbi_models.pipeline.steps.certify import P_VALUES, WEIGHTS

Row = dict[str, Any]

TESTS = {
    "bias": "place",
    "spread": "width",
    "ranks": "form",
    "tarp": "form (TARP)",
    "information": "knows more than the prior",
}
"""What each test of a verdict looks at."""

MISSING = "–"


def posterior_tables(
    table: Sequence[Mapping[str, Any]], data_set_name: str, certificates: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """For each quantity a title and a row a data set: mean, sd, quantiles, those of the exact posterior where
    known, and the certificate.

    Args:
        table: rows of `posterior_table`.
        data_set_name: the column with the labels of data sets.
        certificates: certificates of the same data sets, or none.
    """
    verdicts = {certificate["data_set"]: certificate["verdict"] for certificate in certificates}
    tables = []
    for quantity, unit in dict.fromkeys((row["quantity"], row["unit"]) for row in table):
        rows = [row for row in table if (row["quantity"], row["unit"]) == (quantity, unit)]
        exact = MEAN_ERROR in rows[0]
        digits = digits_of(max(row["sd"] for row in rows))
        names = ["mean", "sd", "2.5 %", "97.5 %"]
        names += ["exact mean", "exact sd", "exact 2.5 %", "exact 97.5 %"] if exact else []
        cells = []
        for row in rows:
            numbers = [fixed(row[name], digits) for name in names]
            numbers += [f"{row[MEAN_ERROR]:+.2f}", f"{row[SD_RATIO]:.2f}"] if exact else []
            cells.append(
                {
                    "label": row[data_set_name],
                    "numbers": numbers,
                    "certificate": verdicts.get(row[data_set_name]),
                }
            )
        columns = [*names, *((MEAN_ERROR, SD_RATIO) if exact else ())]
        tables.append(
            {
                "title": quantity,
                "unit": unit,
                "first": data_set_name,
                "columns": columns,
                "rows": cells,
                "exact": exact,
            }
        )
    return tables


def verdict_rows(verdict: Mapping[str, Any]) -> list[Row]:
    """A row a parameter, and one for all jointly: the words, factor and bias with intervals, and the p-value
    of each test."""
    judged = list(verdict["parameters"].items()) + (
        [("all jointly", verdict["joint"])] if verdict["joint"] is not None else []
    )
    rows = []
    for name, row in judged:
        tests = [
            {
                "name": TESTS.get(test, test),
                "p_value": p_value(found["p_value"]),
                "adjusted": p_value(found["adjusted_p_value"]),
            }
            for test, found in row["tests"].items()
        ]
        rows.append(
            {
                "name": name,
                "label": row["label"],
                "sentence": row["sentence"],
                "factor": estimate(row["width_factor"]),
                "bias": estimate(row["bias_in_posterior_sds"], signed=name != "all jointly"),
                "contraction": MISSING
                if row["contraction"] is None
                else estimate(row["contraction"], percent=True),
                "tests": tests,
                "p_value": p_value(
                    min((found["adjusted_p_value"] for key, found in _flaws(row)), default=None)
                ),
            }
        )
    return rows


def _flaws(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The tests of a row that look for flaws, of those that have a p-value."""
    tests = row["tests"].items()
    return [
        (name, found)
        for name, found in tests
        if name != "information" and found["adjusted_p_value"] is not None
    ]


def certificate_rows(certificates: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[str]]:
    """A row a data set with verdict, numbers and warnings, and the titles of the numbers; those that no data
    set has are left out."""
    titles = {**P_VALUES, "p_value": "all tests"} | WEIGHTS
    columns = {
        key: title
        for key, title in titles.items()
        if any(certificate[key] is not None for certificate in certificates)
    }
    rows = []
    for certificate in certificates:
        numbers = [
            _weight(key, certificate[key])
            if key in WEIGHTS
            else p_value(certificate[key], certificate["level"])
            for key in columns
        ]
        reasons = [_reason(warning) for warning in certificate["warnings"]]
        rows.append(
            {
                "label": certificate["data_set"],
                "verdict": certificate["verdict"],
                "reasons": reasons,
                "numbers": numbers,
            }
        )
    return rows, list(columns.values())


def _reason(warning: str) -> Row:
    """A warning, apart from the statistics that follow its p-value."""
    head, found, statistics = warning.partition("): ")
    return {
        "text": f"{head})" if found else warning,
        "statistics": statistics.removesuffix(".").split("; ") if found else [],
    }


def _weight(key: str, value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.2f}" if key == "pareto_k" else f"{100 * value:.1f} %"


def member_rows(training: Mapping[str, Any], diagnosed: Mapping[str, Any]) -> list[Row]:
    """A row a member of an ensemble: weight, best epoch, last losses, log score and verdict; none without an
    ensemble."""
    rows = []
    for name, member in training.get("members", {}).items():
        losses, own = of_member(training["history"], name), diagnosed[name]
        rows.append(
            {
                "name": name,
                "weight": f"{member['numbers']['weight']:.3f}",
                "best_epoch": f"{member['numbers']['best_epoch']:.0f}",
                "losses": ", ".join(
                    f"{loss.replace('_', ' ')} {values[-1]:.4f}" for loss, values in losses.items()
                ),
                "log_score": f"{own['log_score']:.3f}" if "log_score" in own else MISSING,
                "label": own["verdict"]["label"],
                "sentence": own["verdict"]["sentence"],
            }
        )
    return rows


def composition_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a composition says of itself, as names and values."""
    facts = [("method", str(report["method"])), ("data sets", str(report["num_items"]))]
    if report["calibrated"] and report["bias_shift"] is not None:
        by = f"{report['simulations']} simulations" if report["simulations"] else "what the training learned"
        facts.append(
            ("errors that all share", f"{number(report['bias_shift'])} posterior sd, taken out by {by}")
        )
        facts.append(("uncertainty of that", f"{number(report['calibration_residual'])} posterior sd"))
    for key, name in (
        ("sbc_p_value", "p-value of posterior simulation-based calibration"),
        ("sbc_shift", "how far that finds draws off, posterior sd"),
        ("contradiction", "p-value that all are of the same parameters"),
        ("noise", "noise of the scores"),
    ):
        facts.append((name, number(report[key])))
    return [(name, value) for name, value in facts if value != MISSING]


def diagnostics_table(diagnostics: Mapping[str, Mapping[str, float]]) -> Row:
    """Metrics by parameter."""
    names = list(next(iter(diagnostics.values()), {}))
    return {
        "columns": names,
        "rows": [(metric, [number(row[name]) for name in names]) for metric, row in diagnostics.items()],
    }


def digits_of(sd: float) -> int:
    """Decimals that show two digits of a standard deviation."""
    return max(0, 1 - floor(log10(sd))) if sd > 0 and isfinite(sd) else 3


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; in powers of ten, of as many digits, where these would be many.

    >>> fixed(1126259462.4237, 3), fixed(1126259462.5, 7), fixed(5.4321e-46, 48)
    ('1126259462.424', '1126259462.5', '5.432e-46')
    """
    if digits <= 6 or not isfinite(value):
        return f"{value:.{digits}f}"
    before = floor(log10(abs(value))) + 1 if value else 0
    return f"{value:.{min(17, max(4, digits + before))}g}"


def number(value: float | None) -> str:
    """Three digits of a number."""
    return MISSING if value is None or not isfinite(value) else f"{value:.3g}"


def p_value(value: float | None, level: float = LEVEL) -> str:
    """Two digits of a p-value, as far as they mean something, or as many as show on which side of a level it
    is."""
    if value is None or not isfinite(value):
        return MISSING
    return "< 1e-15" if value < 1e-15 else p_in_words(value, level)


def estimate(found: Mapping[str, float | None], *, signed: bool = False, percent: bool = False) -> str:
    """A number with its interval."""
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None:
        return MISSING
    show = _percent if percent else _signed if signed else _plain
    return show(value) if low is None or high is None else f"{show(value)} [{show(low)}, {show(high)}]"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _signed(value: float) -> str:
    return f"{value:+.2f}"


def _plain(value: float) -> str:
    return f"{value:.2f}"
