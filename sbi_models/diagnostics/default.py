"""The default diagnostics: one table of numbers and one set of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sbi_models.diagnostics.metrics.checks import check_samples
from sbi_models.diagnostics.metrics.registry import METRICS
from sbi_models.diagnostics.variables import (
    Discrete,
    Flat,
    columns_with_categories,
    flatten_variables,
)

if TYPE_CHECKING:
    import pandas as pd

    from sbi_models.diagnostics.plots import Figure


def default_metrics(
    samples: object,
    truth: object,
    variable_names: Sequence[str] | None = None,
    *,
    variable_keys: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """The default metrics, one row per metric and one column per parameter.

    Rows: `NRMSE` (1 is no better than the prior), `Log Gamma` (below 0 rejects calibration at 5 %),
    `Calibration Error` (0 is perfect), `Posterior Contraction` (median over data sets; 1 is certainty). A
    parameter that is constant in the test data has NaN for NRMSE and contraction. The same input gives the
    same table in every run.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.

    Raises:
        DataError: the variables do not fit, are not finite, or hold fewer than 2 data sets or 2 draws.

    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> truth = rng.normal(size=(50, 2))
    >>> samples = truth[:, None] + rng.normal(size=(50, 100, 2))
    >>> list(default_metrics({"theta": samples}, {"theta": truth}).index)
    ['NRMSE', 'Log Gamma', 'Calibration Error', 'Posterior Contraction']
    """
    draws, true, names = flatten_variables(samples, truth, variable_keys, variable_names)
    check_samples(draws, true, min_datasets=2, min_draws=2)
    ordered = sorted(METRICS.items(), key=lambda item: item[1].row)
    rows = {name: metric(draws, true) for name, metric in ordered}
    import pandas as pd  # noqa: PLC0415 - slow to import, and needed for nothing else

    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def default_figures(
    samples: object,
    truth: object,
    history: Mapping[str, Sequence[float]] | None = None,
    variable_names: Sequence[str] | None = None,
    *,
    variable_keys: str | Sequence[str] | None = None,
    discrete: Discrete | None = None,
) -> dict[str, Figure]:
    """The default figures by name.

    They are `losses` (only with a history), `recovery`, `calibration_ecdf`, `coverage` and
    `z_score_contraction`; of categories `confusion`, `reliability` and `calibration_ecdf`.

    Args:
        samples, truth, variable_keys, variable_names: arguments of `flatten_variables`.
        history: losses by name, argument of `plot_losses`.
        discrete: discrete variables and the values of their categories, such as
            `approximator.discrete_variables`.

    Raises:
        DataError: the variables do not fit, are not finite, or hold fewer than 2 data sets or 2 draws; a
            history without `loss`.
    """
    from sbi_models.diagnostics import plots  # noqa: PLC0415 - numbers do not need Matplotlib, which is slow to import

    flat = flatten_variables(samples, truth, variable_keys, variable_names)
    check_samples(flat.samples, flat.truth, min_datasets=2, min_draws=2)
    figures = {} if history is None else {"losses": plots.plot_losses(history)}
    usual: dict[str, Callable[..., Figure]] = {
        "recovery": plots.plot_recovery,
        "calibration_ecdf": plots.plot_calibration_ecdf,
        "coverage": plots.plot_coverage,
        "z_score_contraction": plots.plot_z_score_contraction,
    }
    categories = columns_with_categories(flat, samples, discrete or {}, variable_keys)
    numbers = [j for j in range(len(flat.names)) if j not in categories]
    for name, plot in usual.items():
        columns = numbers if categories and name != "calibration_ecdf" else range(len(flat.names))
        if columns:
            chosen = flat if len(columns) == len(flat.names) else _columns(flat, columns)
            figures[name] = plot(chosen.samples, chosen.truth, variable_names=chosen.names)
    if categories:
        chosen = _columns(flat, list(categories))
        listed = {"theta": list(categories.values())}
        for name, plot in (("confusion", plots.plot_confusion), ("reliability", plots.plot_reliability)):
            figures[name] = plot(chosen.samples, chosen.truth, variable_names=chosen.names, discrete=listed)
    return figures


def _columns(flat: Flat, columns: Sequence[int]) -> Flat:
    """Some of the parameters."""
    return Flat(
        flat.samples[..., columns], flat.truth[:, columns], [flat.names[column] for column in columns]
    )
