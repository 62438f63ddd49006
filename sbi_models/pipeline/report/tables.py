"""The tables of the page of a run, as rows of texts: numbers with as many digits as say something."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sbi_models.pipeline.certificate_summary import P_VALUES, WEIGHTS
from sbi_models.pipeline.member_runs import of_member
from sbi_models.pipeline.outcomes import ModelDiagnosis, Training
from sbi_models.pipeline.posterior_tables import MEAN_ERROR, SD_RATIO
from sbi_models.pipeline.report.numbers import MISSING, digits_of, estimate, fixed, number, p_value

Row = dict[str, Any]

TESTS = {
    "bias": "place",
    "spread": "width",
    "ranks": "form",
    "tarp": "form (TARP)",
    "categories": "probabilities",
    "information": "knows more than the prior",
}
"""What each test of a verdict looks at."""


def posterior_tables(
    table: Sequence[Mapping[str, Any]], data_set_name: str, certificates: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """For each quantity a title and a row a data set: mean, sd, quantiles, and the certificate.

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
    """A row a parameter, and one for all jointly: factor and bias with intervals, and p-values of tests."""
    judged = list(verdict["parameters"].items()) + (
        [("all jointly", verdict["joint"])] if verdict["joint"] is not None else []
    )
    rows = []
    for name, row in judged:
        tests = [
            {
                "name": TESTS.get(test, test),
                "p_value": p_value(result["p_value"]),
                "adjusted": p_value(result["adjusted_p_value"]),
            }
            for test, result in row["tests"].items()
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
                    min((result["adjusted_p_value"] for _, result in _flaws(row)), default=None)
                ),
            }
        )
    return rows


def _flaws(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The tests of a row that look for flaws, of those that have a p-value."""
    tests = row["tests"].items()
    return [
        (name, result)
        for name, result in tests
        if name != "information" and result["adjusted_p_value"] is not None
    ]


def certificate_rows(certificates: Sequence[Mapping[str, Any]]) -> tuple[list[Row], list[str]]:
    """A row a data set with verdict, numbers and warnings, and the titles of the numbers.

    Numbers that no data set has are left out.
    """
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
    head, colon, statistics = warning.partition("): ")
    return {
        "text": f"{head})" if colon else warning,
        "statistics": statistics.removesuffix(".").split("; ") if colon else [],
    }


def _weight(key: str, value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.2f}" if key == "pareto_k" else f"{100 * value:.1f} %"


def member_rows(training: Training, diagnosed: Mapping[str, ModelDiagnosis]) -> list[Row]:
    """A row a member of an ensemble: weight, best epoch, last losses, log score and verdict."""
    rows = []
    for name, member in training.members.items():
        losses, diagnosis = of_member(training.history, name), diagnosed[name]
        rows.append(
            {
                "name": name,
                "weight": f"{member.weight:.3f}",
                "best_epoch": str(member.best_epoch),
                "losses": ", ".join(
                    f"{loss.replace('_', ' ')} {values[-1]:.4f}" for loss, values in losses.items()
                ),
                "log_score": MISSING if diagnosis.log_score is None else f"{diagnosis.log_score:.3f}",
                "label": diagnosis.verdict["label"],
                "sentence": diagnosis.verdict["sentence"],
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
    facts += comparison_facts(report)
    for key, name in (
        ("sbc_p_value", "p-value of posterior simulation-based calibration"),
        ("sbc_shift", "how far that finds draws off, posterior sd"),
        ("contradiction", "p-value that all are of the same parameters"),
        ("noise", "noise of the scores"),
    ):
        facts.append((name, number(report[key])))
    return [(name, value) for name, value in facts if value != MISSING]


def comparison_facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a composition says of the learned likelihood beside it, as names and values."""
    if "returned" not in report:
        return []
    words = {
        "likelihood": "that of the learned likelihood",
        "composition": "the composed one; the learned likelihood is doubted",
    }
    apart = f"{number(report['difference'])} posterior sd, ratio of sds {number(report['sd_ratio'])}"
    facts = [("answer", words[report["returned"]]), ("both differ by", apart)]
    if report["likelihood_p_value"] is not None:
        shift = f"off by about {number(report['likelihood_shift'])} posterior sd"
        facts.append(("test of likelihood", f"p = {number(report['likelihood_p_value'])}, {shift}"))
    chains = report["likelihood"]
    facts.append(
        ("chains", f"R-hat {number(chains['r_hat'])}, {chains['effective_draws']:.0f} effective draws")
    )
    return facts


def diagnostics_table(diagnostics: Mapping[str, Mapping[str, float]]) -> Row:
    """Metrics by parameter."""
    names = list(next(iter(diagnostics.values()), {}))
    return {
        "columns": names,
        "rows": [(metric, [number(row[name]) for name in names]) for metric, row in diagnostics.items()],
    }
