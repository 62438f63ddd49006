"""The default table and figures."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from gaussian_posterior import gaussian

from sbi_models import diagnostics
from sbi_models.diagnostics import (
    calibration_error,
    default_figures,
    default_metrics,
    log_gamma,
    nrmse,
    posterior_contraction,
)
from sbi_models.diagnostics.metrics.registry import METRICS, default_metric
from sbi_models.errors import DataError

ROWS = ["NRMSE", "Log Gamma", "Calibration Error", "Posterior Contraction"]


def test_the_table_holds_each_metric_of_each_parameter():
    """Rows are the four metrics as their own functions give them, columns the parameters."""
    samples, truth = gaussian(0)
    table = default_metrics({"theta": samples}, {"theta": truth, "x": truth})
    assert list(table.index) == ROWS
    assert list(table.columns) == ["theta_0", "theta_1"]
    np.testing.assert_array_equal(table.loc["NRMSE"], nrmse(samples, truth))
    np.testing.assert_array_equal(table.loc["Log Gamma"], log_gamma(samples, truth))
    np.testing.assert_array_equal(table.loc["Calibration Error"], calibration_error(samples, truth))
    np.testing.assert_array_equal(
        table.loc["Posterior Contraction"], np.median(posterior_contraction(samples, truth), axis=0)
    )


def test_the_table_is_the_same_in_every_run():
    """No random number of NumPy's global state enters: two calls agree to the last bit, whatever the global
    seed."""
    samples, truth = gaussian(1)
    np.random.seed(1)
    first = default_metrics({"theta": samples}, {"theta": truth})
    diagnostics.metrics.calibration.null_gammas.cache_clear()
    np.random.seed(2)
    pd.testing.assert_frame_equal(first, default_metrics({"theta": samples}, {"theta": truth}))


def test_an_exact_posterior_has_a_good_table_and_wrong_ones_a_bad_one():
    """Exact: log gamma > 0 and a small error; sd x 0.8 or a shift: log gamma < 0 and a larger error."""
    exact = default_metrics(*gaussian(2, n=500))
    assert (exact.loc["Log Gamma"] > 0).all()
    assert (exact.loc["Calibration Error"] < 0.04).all()
    for flaw in ({"width": 0.8}, {"shift": 0.5}):
        wrong = default_metrics(*gaussian(2, n=500, **flaw))
        assert (wrong.loc["Log Gamma"] < 0).all()
        assert (wrong.loc["Calibration Error"] > exact.loc["Calibration Error"]).all()


def test_a_constant_parameter_has_a_table_too():
    """A constant parameter has NaN for NRMSE and contraction, numbers for the rest, and leaves other
    parameters alone."""
    samples, truth = gaussian(3)
    expected = default_metrics(samples, truth)["theta_1"]
    samples[..., 0], truth[:, 0] = 0.1, 0.1
    table = default_metrics(samples, truth)
    assert table["theta_0"].isna()[ROWS].to_list() == [True, False, False, True, *[False] * (len(ROWS) - 4)]
    pd.testing.assert_series_equal(table["theta_1"], expected)


def test_names_of_the_caller_head_the_columns():
    """variable_names head the columns and title the panels, variable_keys choose variables."""
    samples, truth = gaussian(4, n=30)
    both = {"a": samples, "b": samples[..., :1]}, {"a": truth, "b": truth[:, :1]}
    assert list(default_metrics(*both, ["u", "v", "w"]).columns) == ["u", "v", "w"]
    assert list(default_metrics(*both, variable_keys=["b"]).columns) == ["b"]
    figures = default_figures(*both, variable_names=["u", "v", "w"])
    assert [axes.get_title() for axes in figures["recovery"].axes] == ["u", "v", "w"]


def test_figures_have_the_usual_names():
    """The losses are drawn only with a history."""
    samples, truth = gaussian(5, n=30)
    usual = ["recovery", "calibration_ecdf", "coverage", "z_score_contraction"]
    assert list(default_figures(samples, truth)) == usual
    assert list(default_figures(samples, truth, {"loss": [1.0, 0.5]})) == ["losses", *usual]


@pytest.mark.parametrize("diagnose", [default_metrics, default_figures])
@pytest.mark.parametrize(
    ("size", "message"), [({"n": 1}, "at least 2 data set"), ({"draws": 1}, "at least 2 posterior draw")]
)
def test_too_little_data_is_refused(diagnose, size, message):
    """One data set or one draw raises a DataError instead of NaN."""
    with pytest.raises(DataError, match=message):
        diagnose(*gaussian(6, **size))


def test_one_bad_draw_spoils_the_whole_table_loudly():
    """A single NaN draw raises a DataError; no row is given as if nothing were wrong."""
    samples, truth = gaussian(7, n=30)
    samples[3, 4, 0] = np.nan
    with pytest.raises(DataError, match="1 of 30 data sets: 3"):
        default_metrics(samples, truth)


def test_numbers_load_no_large_library():
    """Importing diagnostics, computing the table and judging load neither Matplotlib, Torch nor
    scikit-learn."""
    code = (
        "import sys, numpy as np; from sbi_models.diagnostics import c2st, default_metrics, judge; r = "
        "np.random.default_rng(0); draws = r.normal(size=(30, 20, 2)), r.normal(size=(30, 2)); "
        "default_metrics(*draws); judge(*draws); loaded = {'matplotlib', 'torch', 'lightning', 'mlflow', "
        "'prefect', 'sklearn'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    """All names that diagnostics promises can be had, and others give the usual AttributeError."""
    assert all(getattr(diagnostics, name) is not None for name in diagnostics.__all__)
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        _ = diagnostics.plot_nothing


def test_a_registered_metric_is_a_row_of_the_table(monkeypatch):
    """A metric that is registered with a name, a reading and a row is in the table at its place, one number
    per data set by the median."""
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS))

    @default_metric("Absolute Error", "0 is best", row=1)
    def absolute_error(samples, truth):
        return np.abs(samples.mean(axis=1) - truth)

    samples, truth = gaussian(0)
    table = default_metrics({"theta": samples}, {"theta": truth})
    assert list(table.index) == ["NRMSE", "Log Gamma", "Absolute Error", *ROWS[2:]]
    np.testing.assert_array_equal(
        table.loc["Absolute Error"], np.median(absolute_error(samples, truth), axis=0)
    )
    assert METRICS["Absolute Error"].reading == "0 is best"
