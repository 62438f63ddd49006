"""Draws from a registered model for observations in a file."""

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sbi_models.errors import ConfigurationError, DataError
from sbi_models.pipeline.experiment.observations import read_observations
from sbi_models.pipeline.folders import project_root
from sbi_models.pipeline.learned_likelihood import implied_draws, report_in_words
from sbi_models.pipeline.model_info import has_proposal, open_shape
from sbi_models.pipeline.posterior_tables import INTERVAL, draws_frame
from sbi_models.pipeline.report.certificates import print_certificates
from sbi_models.pipeline.report.numbers import digits_of, fixed
from sbi_models.pipeline.report.output import output_settings, print_json, print_line
from sbi_models.pipeline.report.usage import NEAR
from sbi_models.tracking import is_model_uri, load, open_store
from sbi_models.workflows.likelihood.implied import ImpliedPosterior, as_posterior

SUFFIXES = (".csv", ".parquet")
QUANTILES = (INTERVAL[0], 0.5, INTERVAL[1])


def sample_file(
    model: str,
    observations: Path,
    *,
    num_samples: int,
    seed: int,
    output: Path | None,
    certificate: bool = True,
) -> pd.DataFrame:
    """Draw for the data sets of a file, and write the draws.

    A summary and certificates go to standard error.

    As JSON, summary and certificates are printed on standard output, and draws are written to an output
    file only.
    """
    if output is not None and output.suffix not in SUFFIXES:
        raise ConfigurationError(
            f"Expected an output file ending in {' or '.join(SUFFIXES)}, got {output.name!r}."
        )
    if output is not None and not (output.parent.is_dir() and os.access(output.parent, os.W_OK)):
        raise ConfigurationError(
            f"Expected an output file in a folder that can be written to, got {output}. Make the "
            "folder first."
        )
    if not observations.is_file():
        raise DataError(f"{observations}: no such file. Expected a CSV file of observations.")
    approximator = as_posterior(
        load(model, open_store(project_root(), create=False) if is_model_uri(model) else None, certify=False)
    )
    if len(approximator.condition_names) != 1:
        raise DataError(
            f"This model conditions on {', '.join(approximator.condition_names)}; a CSV file can "
            "hold one variable only."
        )
    (variable,) = approximator.condition_names
    labels, values = read_observations(
        observations,
        variable,
        open_shape(approximator, variable),
        may_miss=variable in approximator.may_miss,
    )
    reports: list[dict[str, Any]] = []
    if isinstance(approximator, ImpliedPosterior):
        draws, told = implied_draws(approximator, {variable: values}, num_samples, seed)
        reports = [{"data_set": label, **one.as_dict()} for label, one in zip(labels, told, strict=True)]
    else:
        draws = approximator.sample(num_samples=num_samples, conditions={variable: values}, seed=seed)
    frame = draws_frame(labels, draws, approximator.info.get("variable_names", {}))
    rows, note = _summarized(frame), NEAR if has_proposal(approximator.info) else None
    certificates = []
    if certificate and not isinstance(approximator, ImpliedPosterior):
        issued = approximator.certify({variable: values}, seed=seed)
        certificates = [
            {"data_set": label, **one.as_dict()} for label, one in zip(labels, issued, strict=True)
        ]
    _print_summary(
        f"{model}: {num_samples} draws for each of {len(labels)} data sets, seed {seed}",
        rows,
        note,
        certificates,
        reports,
    )
    if output is None and not output_settings().as_json:
        frame.to_csv(sys.stdout, index=False)
    elif output is not None and output.suffix == ".parquet":
        frame.to_parquet(output, index=False)
    elif output is not None:
        frame.to_csv(output, index=False)
    drawn = {
        "model": model,
        "num_samples": num_samples,
        "seed": seed,
        "output": None if output is None else str(output),
    }
    print_json(
        drawn
        | {"posteriors": rows, "certificates": certificates if certificate else None, "note": note}
        | ({"reports": reports} if reports else {})
    )
    return frame


def _summarized(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Mean, sd and quantiles of the draws, a row a data set and parameter."""
    rows = []
    for label, draws in frame.groupby("data_set", sort=False):
        for parameter in frame.columns[2:]:
            values = draws[parameter]
            quantiles = {f"{100 * q:g} %": float(values.quantile(q)) for q in QUANTILES}
            rows.append(
                {
                    "data_set": str(label),
                    "parameter": parameter,
                    "mean": float(values.mean()),
                    "sd": float(values.std()),
                    **quantiles,
                }
            )
    return rows


def _print_summary(
    title: str,
    rows: list[dict[str, Any]],
    note: str | None,
    certificates: list[dict[str, Any]],
    reports: list[dict[str, Any]],
) -> None:
    """Print summary, and certificates or reports, on standard error.

    If quiet only certificates that failed, and reports with doubts, are printed, and under `--json` nothing.
    """
    if output_settings().as_json:
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not output_settings().quiet:
        table = Table(box=SIMPLE_HEAD)
        for column in rows[0]:
            table.add_column(
                column.replace("_", " "),
                justify="left" if column in ("data_set", "parameter") else "right",
                no_wrap=True,
            )
        for row in rows:
            digits = digits_of(row["sd"]) + 1
            table.add_row(
                *(escape(cell) if isinstance(cell, str) else fixed(cell, digits) for cell in row.values())
            )
        console.print(escape(title))
        console.print(table)
    if note is not None:
        console.print(f"[yellow]{note}[/yellow]\n")
    quiet = output_settings().quiet
    for report in reports:
        if not quiet:
            console.print(f"{escape(report['data_set'])}: {report_in_words(report)}")
        for warning in report["warnings"]:
            console.print(f"[yellow]{escape(report['data_set'])}: {escape(warning)}[/yellow]")
    shown = [row for row in certificates if not quiet or row["verdict"] != "passed"]
    if shown:
        console.print("Certificates: is a data set like the simulations of the training?")
        print_line(
            console,
            "(Whether data simulated from its posterior look like it is asked where the simulator "
            "is: in a run, by workflow.certify.)\n",
        )
        print_certificates(console, "data set", shown)
