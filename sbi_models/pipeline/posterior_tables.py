"""Posterior draws as tables and figures."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sbi_models import diagnostics
from sbi_models.pipeline.experiment.study import Reference, Study
from sbi_models.tracking.names import keys_of
from sbi_models.types import Array, Variables

if TYPE_CHECKING:
    from sbi_models.diagnostics.plots import Figure

INTERVAL = (0.025, 0.975)

MEAN_ERROR, SD_RATIO = "error/sd", "sd ratio"


def posterior_table(
    study: Study, labels: list[str], values: list[Array], references: list[list[Reference]] | None
) -> pd.DataFrame:
    """A row for each data set and quantity: mean, sd, 95 % interval, and those of an exact posterior.

    Args:
        study: names and units of the quantities; their offsets are added.
        labels: labels of the data sets.
        values: draws of each quantity, (num_datasets, num_samples).
        references: exact posteriors, by data set and quantity.
    """
    rows = []
    for i, label in enumerate(labels):
        for j, quantity in enumerate(study.quantities):
            draws = values[j][i]
            low, high = np.quantile(draws, INTERVAL) + quantity.offset
            row = {
                study.data_set_name: label,
                "quantity": quantity.name,
                "unit": quantity.unit,
                "mean": draws.mean() + quantity.offset,
                "sd": draws.std(ddof=1),
                "2.5 %": low,
                "97.5 %": high,
            }
            if references is not None:
                exact = references[i][j]
                row |= {
                    "exact mean": exact.mean + quantity.offset,
                    "exact sd": exact.sd,
                    "exact 2.5 %": exact.interval[0] + quantity.offset,
                    "exact 97.5 %": exact.interval[1] + quantity.offset,
                    MEAN_ERROR: (draws.mean() - exact.mean) / exact.sd,
                    SD_RATIO: draws.std(ddof=1) / exact.sd,
                }
            rows.append(row)
    return pd.DataFrame(rows)


def table_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dicts, which JSON can hold."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict(orient="records")]


def reference_errors(table: pd.DataFrame) -> dict[str, float]:
    """Errors against exact posteriors as metrics: each, and the largest by quantity; else none."""
    if MEAN_ERROR not in table:
        return {}
    metrics, keys = {}, keys_of(table["quantity"])
    for quantity, rows in table.groupby("quantity", sort=False):
        name = keys[str(quantity)]
        metrics[f"reference.{name}.largest_error_of_mean_in_sd"] = float(rows[MEAN_ERROR].abs().max())
        metrics[f"reference.{name}.largest_error_of_sd"] = float((rows[SD_RATIO] - 1).abs().max())
    return metrics


def posterior_figure(
    study: Study,
    labels: list[str],
    values: list[Array],
    references: list[list[Reference]],
    *,
    samples_label: str = "amortized posterior",
) -> "Figure":
    """Draws of each quantity against its exact density, a row a data set."""
    offsets = np.array([quantity.offset for quantity in study.quantities])
    truths = np.array([np.nan if quantity.truth is None else quantity.truth for quantity in study.quantities])
    return diagnostics.plot_posterior_reference(
        np.stack(values, axis=-1) + offsets,
        np.array(
            [[exact.grid + offset for exact, offset in zip(row, offsets, strict=True)] for row in references]
        ),
        np.array([[exact.density for exact in row] for row in references]),
        truths + offsets,
        variable_names=[
            f"{quantity.name} [{quantity.unit}]" if quantity.unit else quantity.name
            for quantity in study.quantities
        ],
        data_set_names=[f"{study.data_set_name} {label}" for label in labels],
        samples_label=samples_label,
        truth_label="value of today",
    )


def draws_frame(labels: list[str], draws: Variables, parameter_names: dict[str, list[str]]) -> pd.DataFrame:
    """Draws (num_datasets, num_samples, width) as a table: data set, draw, a column for each parameter."""
    n, s = next(iter(draws.values())).shape[:2]
    columns: dict[str, Any] = {"data_set": np.repeat(labels, s), "draw": np.tile(np.arange(s), n)}
    for variable, values in draws.items():
        width = values.shape[-1]
        names = parameter_names.get(variable) or (
            [variable] if width == 1 else [f"{variable}_{i}" for i in range(width)]
        )
        columns |= {name: values[..., i].reshape(-1) for i, name in enumerate(names)}
    return pd.DataFrame(columns)
