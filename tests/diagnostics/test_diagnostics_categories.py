"""Diagnostics of categories: metrics by hand and by enumeration, verdicts of right and wrong posteriors."""

import itertools

import numpy as np
import pytest

from sbi_models import diagnostics
from sbi_models.diagnostics.metrics.categories import _sum_of_bernoullis
from sbi_models.errors import DataError

VALUES = [1.0, 3.0, 7.0]
DISCRETE = {"choice": [VALUES]}


def posteriors(n=300, seed=0, sharpness=1.0, shift=0.0):
    """True choices with a uniform prior, a normal view x of them, and 200 draws of posteriors whose log
    probabilities are multiplied by `sharpness`, and moved by `shift` for the last category."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(VALUES, size=n)
    x = truth + 2.0 * rng.normal(size=n)
    logs = -0.5 * ((x[:, None] - VALUES) / 2.0) ** 2
    logs = sharpness * logs + shift * np.array([0.0, 0.0, 1.0])
    p = np.exp(logs - logs.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    which = (rng.uniform(size=(n, 200))[..., None] > p.cumsum(axis=1)[:, None, :-1]).sum(axis=-1)
    return np.asarray(VALUES)[which], truth, x, p


def verdict(seed=0, **wrong):
    draws, truth, x, _ = posteriors(seed=seed, **wrong)
    return diagnostics.judge(
        {"choice": draws[..., None]}, {"choice": truth}, conditions={"x": x}, discrete=DISCRETE, seed=seed
    )


def test_metrics_by_hand():
    """Shares, confusion and the Brier score of three data sets."""
    draws, truth = [[1, 1, 3, 3], [1, 1, 1, 7], [7, 7, 7, 7]], [1, 3, 7]
    shares = diagnostics.category_probabilities(draws, VALUES)
    assert shares.tolist() == [[0.5, 0.5, 0.0], [0.75, 0.0, 0.25], [0.0, 0.0, 1.0]]
    assert diagnostics.confusion_matrix(draws, truth, VALUES).tolist() == shares.tolist()
    assert diagnostics.brier_score(shares, truth, VALUES).tolist() == [0.5, 0.5625 + 1.0 + 0.0625, 0.0]
    curve = diagnostics.reliability(draws, truth, VALUES, bins=4)
    assert curve.stated.tolist() == [0.0, 0.25, 0.5, pytest.approx(0.875)]
    assert curve.frequency.tolist() == [0.25, 0.0, 0.5, 0.5]
    assert curve.number.tolist() == [4.0, 1.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("draws", "truth"), [([[1, 2]], [1]), ([[1, 3]], [2]), ([[1, 3]], [1, 1]), ([[[1, 3]]], [1])]
)
def test_values_and_shapes_that_do_not_fit_are_refused(draws, truth):
    """Draws or true values in no category, other numbers of data sets, several parameters at once."""
    with pytest.raises(DataError):
        diagnostics.confusion_matrix(draws, truth, VALUES)


def test_the_law_of_a_sum_of_trials_is_exact():
    """Against enumeration of all outcomes, and against the binomial law where Fourier transforms are used."""
    p = np.array([0.1, 0.9, 0.35, 0.5, 0.72])
    law = np.zeros(6)
    for outcome in itertools.product([0, 1], repeat=5):
        law[sum(outcome)] += np.prod(np.where(outcome, p, 1 - p))
    np.testing.assert_allclose(_sum_of_bernoullis(p), law, atol=1e-15)
    found = _sum_of_bernoullis(np.full(1000, 0.3))
    assert found.sum() == pytest.approx(1.0)
    assert found @ np.arange(1001) == pytest.approx(300.0)
    assert found @ (np.arange(1001) - 300.0) ** 2 == pytest.approx(210.0)


def test_right_posteriors_are_rejected_no_more_often_than_said():
    """Of 300 sets of 60 right posteriors with 12 draws each, at most 5 % and three standard errors have a
    p-value below .05."""
    rejected = 0
    for seed in range(300):
        draws, truth, *_ = posteriors(n=60, seed=seed)
        rejected += diagnostics.category_tests(draws[:, :12], truth, VALUES).p_value < 0.05
    assert rejected <= 300 * 0.05 + 3 * (300 * 0.05 * 0.95) ** 0.5


def test_verdicts_of_categories():
    """Exact posteriors are calibrated, too sharp ones over-confident, too flat ones under-confident, and a
    category that is stated too often is named with its probability and frequency."""
    assert verdict().label == "calibrated"
    assert verdict(sharpness=4.0).label == "over-confident"
    assert verdict(sharpness=0.25).label == "under-confident"
    biased = verdict(shift=1.5)
    assert biased.label == "miscalibrated"
    assert "7 stated" in biased.parameters[0].sentence
    (worst,) = [one for one in biased.parameters[0].categories if one.value == 7.0]
    assert worst.stated > worst.frequency + 0.1
    assert worst.p_value < 0.01
    assert "posterior sds" not in biased.parameters[0].sentence


def test_right_posteriors_of_categories_pass_the_verdict():
    """Of 40 verdicts on right posteriors at most two are not calibrated, at a false alarm rate of 1 %."""
    labels = [verdict(seed=seed).label for seed in range(40)]
    assert labels.count("calibrated") >= 38


def test_json_of_a_verdict_has_categories():
    """Only of categorical parameters; width and place are null there."""
    row = verdict().as_dict()["parameters"]["choice"]
    assert [one["value"] for one in row["categories"]] == VALUES
    assert row["width_factor"]["value"] is None
    draws, truth, *_ = posteriors(n=50)
    plain = diagnostics.judge({"choice": draws[..., None]}, {"choice": truth})
    assert "categories" not in plain.as_dict()["parameters"]["choice"]


def test_figures_of_categories_take_the_place_of_recovery():
    """Confusion and reliability of the categorical parameter, recovery of the other one, ranks of both."""
    draws, truth, x, p = posteriors(n=60)
    rng = np.random.default_rng(1)
    samples = {"choice": draws[..., None], "mu": x[:, None, None] + rng.normal(size=(60, 200, 1))}
    true = {"choice": truth, "mu": x}
    figures = diagnostics.default_figures(samples, true, discrete=DISCRETE)
    titles = {name: [axes.get_title() for axes in figure.axes] for name, figure in figures.items()}
    assert titles["confusion"] == titles["reliability"] == ["choice"]
    assert titles["recovery"] == titles["coverage"] == titles["z_score_contraction"] == ["mu"]
    assert titles["calibration_ecdf"] == ["choice", "mu"]
    shown = figures["confusion"].axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, diagnostics.confusion_matrix(draws, truth, VALUES))
    alone = diagnostics.default_figures({"choice": draws[..., None]}, {"choice": truth}, discrete=DISCRETE)
    assert set(alone) == {"calibration_ecdf", "confusion", "reliability"}
    diagnostics.plot_verdict(verdict())
    with pytest.raises(DataError, match="as_categorical"):
        diagnostics.plot_confusion(samples, true, discrete={})
    assert p.shape == (60, 3)
