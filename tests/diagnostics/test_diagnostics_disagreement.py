"""Disagreement between posteriors: known divergences, and figures."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.stats import norm

from sbi_models import diagnostics
from sbi_models.errors import DataError


def cross(means, num_samples, seed=0):
    """Log densities of N(m, 1) for each mean at draws of each."""
    draws = np.array(means)[:, None] + np.random.default_rng(seed).normal(size=(len(means), num_samples))
    return norm.logpdf(draws[..., None], np.array(means))[None]


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.8, 0.2]])
def test_the_jensen_shannon_divergence_of_two_normals(gap, weights):
    """It is that of numerical integration, 0 for equal posteriors, and the entropy of the weights for
    posteriors far apart."""

    def integrand(t):
        p = np.array([norm.pdf(t), norm.pdf(t, gap)])
        mixture = float(p @ weights)
        return sum(w * q * np.log(q / mixture) for w, q in zip(weights, p, strict=True) if q > 0)

    exact = quad(integrand, -10, gap + 10, limit=500, points=[0.0, gap])[0]
    (got,) = diagnostics.jensen_shannon_divergence(cross([0.0, gap], 40_000), weights)
    assert got == pytest.approx(exact, abs=0.01)
    if gap == 30.0:
        assert got == pytest.approx(-np.sum(weights * np.log(weights)), abs=1e-9)
    if gap == 0.0:
        assert got == pytest.approx(0.0, abs=1e-12)


def test_a_member_without_weight_does_not_count():
    """A member of weight 0 may disagree as it likes."""
    with_it = diagnostics.jensen_shannon_divergence(cross([0.0, 1.0, 50.0], 100), [0.5, 0.5, 0.0])
    np.testing.assert_allclose(
        with_it, diagnostics.jensen_shannon_divergence(cross([0.0, 1.0, 50.0], 100)[:, :2, :, :2])
    )


def test_energy_disagreement_of_known_posteriors():
    """Around 0 for equal posteriors, 1 for points apart, the value of the formula for two normals, and free
    of units."""
    rng = np.random.default_rng(0)
    equal = diagnostics.energy_disagreement(rng.normal(size=(200, 3, 50, 2)))
    assert abs(equal.mean()) < 4 * equal.std() / np.sqrt(200)
    points = np.tile(np.array([0.0, 1.0])[None, :, None, None], (1, 1, 5, 1))
    np.testing.assert_allclose(diagnostics.energy_disagreement(points), 1.0)
    assert diagnostics.energy_disagreement(np.ones((1, 2, 5, 1)))[0] == 0.0
    apart = rng.normal(size=(1, 2, 2000, 1)) + np.array([0.0, 3.0])[None, :, None, None]
    within = 2 / np.sqrt(np.pi)  # E|X - X'| of N(0, 1)
    between = norm(3, np.sqrt(2)).expect(abs)
    expected = 1 - within / (within / 2 + between / 2)
    got = diagnostics.energy_disagreement(apart)
    assert got[0] == pytest.approx(expected, abs=0.02)
    np.testing.assert_allclose(diagnostics.energy_disagreement(1e6 * apart + 7), got)


@pytest.mark.parametrize(
    ("function", "argument", "weights"),
    [
        (diagnostics.jensen_shannon_divergence, np.zeros((2, 3, 4, 2)), None),
        (diagnostics.jensen_shannon_divergence, np.zeros((3, 4, 3)), None),
        (diagnostics.jensen_shannon_divergence, np.full((1, 2, 4, 2), np.nan), None),
        (diagnostics.jensen_shannon_divergence, np.full((1, 2, 4, 2), -np.inf), None),
        (diagnostics.jensen_shannon_divergence, np.zeros((1, 2, 4, 2)), [1.0]),
        (diagnostics.jensen_shannon_divergence, np.zeros((1, 2, 4, 2)), [1.0, -1.0]),
        (diagnostics.energy_disagreement, np.zeros((3, 4, 3)), None),
        (diagnostics.energy_disagreement, np.zeros((1, 2, 1, 2)), None),
        (diagnostics.energy_disagreement, np.full((1, 2, 4, 2), np.nan), None),
        (diagnostics.energy_disagreement, np.zeros((1, 2, 4, 2)), [0.0, 0.0]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(function, argument, weights):
    """Wrong shapes, NaN and bad weights are errors."""
    with pytest.raises(DataError, match="Expected"):
        function(argument, weights)


def test_the_figure_shows_observations_in_a_reference():
    """Few observations are lines over the reference; many, or all without a reference, are a distribution."""
    rng = np.random.default_rng(1)
    few = diagnostics.plot_disagreement([0.1, 2.0], rng.exponential(0.2, 300))
    assert isinstance(few, Figure)
    assert [text.get_text() for text in few.legends[0].get_texts()] == ["reference", "observations"]
    assert "50% above the 95 % quantile" in few.axes[0].texts[0].get_text()
    assert len(few.axes[0].lines) == 2
    far = diagnostics.plot_disagreement([0.1, 0.2], [*rng.uniform(0.0, 0.3, 399), 50.0])
    assert far.legends[0].get_texts()[0].get_text() == "reference, 0.2% of it further right"
    assert far.axes[0].get_xlim()[1] < 0.5
    for figure in (
        diagnostics.plot_disagreement(rng.exponential(0.2, 300)),
        diagnostics.plot_disagreement([0.0, 0.0]),
    ):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data sets"]
    for bad in ([], [[0.1]], [np.nan]):
        with pytest.raises(DataError):
            diagnostics.plot_disagreement(bad)
