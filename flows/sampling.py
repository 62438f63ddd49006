"""Draws from a registered model for observations in a file."""

import os
import sys
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flows.certificates import show_certificates
from flows.observations import read_observations
from flows.reporting import INTERVAL, draws_frame
from flows.runtime import project_root
from flows.training import NARROWED
from sbi_models.errors import ConfigurationError, DataError
from sbi_models.tracking import is_model_uri, load, open_store

SUFFIXES = (".csv", ".parquet")


def sample_file(
    model: str, observations: Path, *, num_samples: int, seed: int, output: Path | None, certificate: bool = True
) -> pd.DataFrame:
    """Read observations, draw, write the draws, and show a summary and the certificate of each data set on standard error."""
    if output is not None and output.suffix not in SUFFIXES:
        raise ConfigurationError(f"Expected an output file ending in {' or '.join(SUFFIXES)}, got {output.name!r}.")
    if output is not None and not (output.parent.is_dir() and os.access(output.parent, os.W_OK)):
        raise ConfigurationError(f"Expected an output file in a folder that can be written to, got {output}. Make the folder first.")
    if not observations.is_file():
        raise DataError(f"{observations}: no such file. Expected a CSV file of observations.")
    approximator = load(model, open_store(project_root(), create=False) if is_model_uri(model) else None, certify=False)
    if len(approximator.condition_names) != 1:
        raise DataError(f"This model conditions on {', '.join(approximator.condition_names)}; a CSV file can hold one variable only.")
    (variable,) = approximator.condition_names
    labels, values = read_observations(observations, variable, approximator.shapes[variable])
    draws = approximator.sample(num_samples=num_samples, conditions={variable: values}, seed=seed)
    frame = draws_frame(labels, draws, approximator.info.get("variable_names", {}))
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    _summary(console, frame, model, num_samples, seed)
    if NARROWED in approximator.info:
        console.print(
            "[yellow]This model was trained near one observation, and these draws are those under a narrower prior. Those of the posterior "
            "have weights: run its experiment, or workflow.importance_sample.[/yellow]\n"
        )
    if certificate:
        found = approximator.certify({variable: values}, seed=seed)
        console.print("Certificates: is a data set like the simulations of the training?\n")
        show_certificates(console, "data set", [{"data_set": label, **own.as_dict()} for label, own in zip(labels, found, strict=True)])
    if output is None:
        frame.to_csv(sys.stdout, index=False)
    elif output.suffix == ".parquet":
        frame.to_parquet(output, index=False)
    else:
        frame.to_csv(output, index=False)
    return frame


def _summary(console: Console, frame: pd.DataFrame, model: str, num_samples: int, seed: int) -> None:
    table = Table(box=SIMPLE_HEAD)
    for column in ("data set", "parameter", "mean", "sd", "2.5 %", "97.5 %"):
        table.add_column(column, justify="left" if column in ("data set", "parameter") else "right", no_wrap=True)
    for label, rows in frame.groupby("data_set", sort=False):
        for parameter in frame.columns[2:]:
            values = rows[parameter]
            low, high = values.quantile(list(INTERVAL))
            table.add_row(str(label), parameter, *(f"{number:.4g}" for number in (values.mean(), values.std(), low, high)))
    console.print(f"{model}: {num_samples} draws for each of {frame['data_set'].nunique()} data sets, seed {seed}")
    console.print(table)
