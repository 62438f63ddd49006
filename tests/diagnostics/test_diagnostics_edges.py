"""Edges of diagnostics: defaults, columns without spread, ties, and thresholds that are met exactly."""

import inspect
import re

import numpy as np
import pytest

from sbi_models import diagnostics
from sbi_models.diagnostics import judge, metrics
from sbi_models.diagnostics.judging import WIDE, _columns
from sbi_models.diagnostics.metrics import pearson_r, predictive_check
from sbi_models.diagnostics.metrics.importance import effective_sample_share, largest_weight_share
from sbi_models.diagnostics.metrics.information import information, share_like_the_prior
from sbi_models.diagnostics.metrics.pools import pooled
from sbi_models.errors import DataError

DEFAULTS = {"level": 0.95, "band": 0.95, "seed": 0, "folds": 5, "num_null": 100, "classifier": "mlp"}
DEFAULTS |= {
    "false_alarms": 0.01,
    "scaled": True,
    "kind": "mean",
    "estimate": "mean",
    "joint": True,
    "bins": 10,
}


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


def test_shares_of_weights_do_not_depend_on_the_scale_of_other_data_sets():
    """Weights that are a factor of exp(1000) smaller than those of another data set have the same shares."""
    logs = np.log([[1.0, 3.0, 4.0]]) + np.array([[0.0], [-1000.0], [1000.0]])
    np.testing.assert_allclose(effective_sample_share(logs), 64 / 26 / 3, rtol=1e-12)
    np.testing.assert_allclose(largest_weight_share(logs), 0.5, rtol=1e-12)


def test_joint_errors_are_mahalanobis_distances_from_the_other_draws():
    """With few draws of four parameters, the mean squared length of all values of a pool is that of distances
    to the mean of the others, in their covariance, less what they have in common; one by one."""
    rng = np.random.default_rng(5)
    draws, truth = rng.normal(size=(40, 12, 4)), rng.normal(size=(40, 4))
    _, joint = pooled(draws, truth, np.random.default_rng(0))
    seen = 0
    for i in range(40):
        pool = np.concatenate([draws[i], truth[i : i + 1]])
        white = (pool - pool.mean(axis=0)) / pool.std(axis=0)
        values, vectors = np.linalg.eigh(white.T @ white / 13)
        white = white @ (vectors / np.sqrt(values)) @ vectors.T
        errors, largest = [], 0.0
        for k in range(13):
            others = np.delete(white, k, axis=0)
            away = others.mean(axis=0) - white[k]
            length = away @ np.linalg.solve(np.cov(others.T), away)
            errors.append(-white[k] * np.sqrt(length / (white[k] @ white[k])))
            largest = max(largest, white[k] @ white[k])
        if 6.5 < largest < 8:  # (12 + 4) / 2: beyond it lengths are cut
            seen += 1
            expected = np.mean(np.square(errors).sum(axis=1)) - np.square(np.mean(errors, axis=0)).sum()
            assert np.ravel(joint.second)[i] == pytest.approx(expected, rel=1e-9)
    assert seen > 5


def test_one_informative_parameter_is_enough_wherever_it_stands():
    """A right posterior that knows one of two parameters, the first or the second, is calibrated."""
    rng = np.random.default_rng(6)
    truth = rng.normal(size=(100, 2))
    x = truth + 0.5 * rng.normal(size=(100, 2))
    known = 0.8 * x[:, None] + np.sqrt(0.2) * rng.normal(size=(100, 40, 2))
    for unknown in (0, 1):
        draws = known.copy()
        draws[..., unknown] = rng.normal(size=(100, 40))
        verdict = judge(draws, truth)
        assert verdict.label == "calibrated"
        assert [row.label for row in verdict.parameters][unknown] == "uninformative"


def test_very_many_conditions_become_principal_components():
    """Of conditions far from 0, in any unit: centred columns at right angles, whose squared lengths are the
    largest eigenvalues of the correlations, then mean and sd of each row, and the share that is missing."""
    rng = np.random.default_rng(7)
    n, q = 80, 3 * WIDE
    values = 50 + rng.normal(size=(n, q)) @ np.diag(np.linspace(1, 4, q)) + 3 * rng.normal(size=(n, 1))
    values[0, : q // 4] = np.nan
    columns = _columns({"x": values}, n)
    assert columns.shape == (n, WIDE + 3)
    components = columns[:, :WIDE]
    np.testing.assert_allclose(components.mean(axis=0), 0.0, atol=1e-10)
    gram = components.T @ components
    filled = np.nan_to_num(values)
    largest = np.linalg.eigvalsh(np.corrcoef(filled.T))[::-1][:WIDE] * n
    np.testing.assert_allclose(gram, np.diag(largest), atol=1e-8 * largest[0])
    np.testing.assert_allclose(columns[:, WIDE], (filled / filled.max(axis=0)).mean(axis=1))
    assert columns[:, -1].tolist() == [0.25, *[0.0] * (n - 1)]


def test_parameters_of_very_different_units_are_judged_as_in_one_unit():
    """Units of 1 and 1e200 beside each other change no label and no estimate."""
    rng = np.random.default_rng(8)
    truth = rng.normal(size=(60, 2))
    x = truth + rng.normal(size=(60, 2))
    draws = 0.5 * x[:, None] + np.sqrt(0.5) * rng.normal(size=(60, 30, 2))
    usual, other = judge(draws, truth), judge(draws * [1.0, 1e200], truth * [1.0, 1e200])
    assert other.label == usual.label == "calibrated"
    for one, two in zip(usual.parameters, other.parameters, strict=True):
        assert two.contraction.value == pytest.approx(one.contraction.value)


def test_a_verdict_says_for_how_many_data_sets_nothing_was_learned():
    """Where conditions show that the data tell nothing for two fifths of the data sets, the right posterior
    is calibrated, and the sentence has their share."""
    rng = np.random.default_rng(9)
    truth, blind = rng.normal(size=(100, 1)), np.arange(100)[:, None] < 40
    x = truth + 0.2 * rng.normal(size=(100, 1))
    mean, sd = np.where(blind, 0.0, x / 1.04), np.where(blind, 1.0, np.sqrt(0.04 / 1.04))
    draws = (mean + sd * rng.normal(size=(100, 60)))[..., None]
    verdict = judge(draws, truth, conditions={"x": np.where(blind, 0.0, x)})
    assert verdict.label == "calibrated"
    share = re.search(r"for (\d+) % of them the draws are no more than the prior", verdict.sentence)
    assert 25 < int(share[1]) <= 40
