"""Edges of diagnostics: defaults, columns without spread, ties, and thresholds that are met exactly."""

import inspect

import numpy as np
import pytest

from sbi_models import diagnostics
from sbi_models.diagnostics import metrics
from sbi_models.diagnostics.metrics import pearson_r, predictive_check
from sbi_models.diagnostics.metrics.information import information, share_like_the_prior
from sbi_models.errors import DataError

DEFAULTS = {"level": 0.95, "band": 0.95, "seed": 0, "folds": 5, "num_null": 100, "classifier": "mlp"}
DEFAULTS |= {"false_alarms": 0.01, "scaled": True, "kind": "mean", "estimate": "mean", "joint": True}


@pytest.mark.parametrize("module", [diagnostics, metrics])
def test_settings_of_one_name_have_one_default(module):
    """Every public function has the same default for a setting as the others: 95 % levels, seed 0."""
    found = {
        (name, a.name): a.default
        for name in module.__all__
        if callable(function := getattr(module, name)) and not inspect.isclass(function)
        for a in inspect.signature(function).parameters.values()
        if a.default is not a.empty and a.default is not None and not a.name.endswith("label")
    }
    assert found == {(name, setting): DEFAULTS[setting] for name, setting in found}
    assert len(found) > 10


def test_constant_estimates_have_no_correlation_whatever_their_rounding():
    """0.1 three times has a mean that is not 0.1: its deviations are rounding, and not a correlation."""
    constant, truth = np.full((3, 1), 0.1), np.array([[1.0], [2.0], [4.0]])
    assert constant.mean() != 0.1
    assert np.isnan(pearson_r(constant, truth)).all()
    assert np.isnan(pearson_r(truth, constant)).all()


def test_too_few_draws_and_constant_parameters_are_not_like_the_prior():
    """Draws of the prior are like it from 20 for each data set on; nothing is like a prior without spread."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(100, 1))
    assert share_like_the_prior(rng.normal(size=(100, 20, 1)), truth) > 0.8
    assert share_like_the_prior(rng.normal(size=(100, 19, 1)), truth) == 0.0
    assert share_like_the_prior(np.ones((100, 50, 1)), np.ones((100, 1))) == 0.0
    assert share_like_the_prior(0.3 * rng.normal(size=(100, 200, 1)), truth) == 0.0


def test_a_constant_parameter_tells_nothing_and_changes_nothing():
    """Its information is 0 with a p-value of 1/2, and that of all parameters is what it is without it."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(60, 2))
    draws = truth[:, None] + rng.normal(size=(60, 30, 2))
    gains, p_values = information(draws, truth)
    noise = np.concatenate([draws, rng.normal(size=(60, 30, 1))], axis=2)
    more_gains, more_p_values = information(noise, np.concatenate([truth, np.ones((60, 1))], axis=1))
    assert (more_gains[2], more_p_values[2]) == (0.0, 0.5)
    np.testing.assert_allclose(more_gains[[0, 1, 3]], gains, rtol=1e-9)
    np.testing.assert_allclose(more_p_values[[0, 1, 3]], p_values, rtol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_simulations_that_are_not_finite_are_refused_by_the_predictive_check(bad):
    """In the predictive data, and in the observed."""
    predictive, observed = np.zeros((2, 5, 3)), np.zeros((2, 3))
    predictive[1, 2, 0] = bad
    with pytest.raises(DataError, match="predictive"):
        predictive_check(predictive, observed)
    observed[0, 1] = bad
    with pytest.raises(DataError, match="observed"):
        predictive_check(np.zeros((2, 5, 3)), observed)


def test_information_counts_draws_and_truths_alike():
    """F is the mean of two distribution functions, of draws and of true values, also where these differ much;
    by all distances one by one, and Hoeffding's variance."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(25, 1))
    draws = np.exp(2 * rng.normal(size=(25, 15, 1))) + truth[:, None]

    def placed(values):
        return sum(
            (np.mean(values[..., None] > o, axis=-1) + np.mean(values[..., None] >= o, axis=-1)) / 4
            for o in (draws.ravel(), truth.ravel())
        )

    a = np.abs(placed(draws[..., 0])[:, :, None] - placed(truth[:, 0])).mean(axis=1)
    centred = a - a.mean(axis=0) - a.mean(axis=1, keepdims=True) + a.mean()
    gains, _ = information(draws, truth)
    assert gains[0] == pytest.approx(-np.trace(centred) / np.sqrt((centred**2).sum() / 24), rel=1e-9)


def test_statistics_that_are_equal_in_all_data_have_p_values_of_one():
    """Ties with the observed data count as low and as high."""
    check = predictive_check(np.full((2, 9, 4), 3.0), np.full((2, 4), 3.0))
    assert (check.p_values == 1.0).all()
