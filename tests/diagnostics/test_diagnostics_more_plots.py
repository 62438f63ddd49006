"""Figures of ranks, TARP, verdicts, predictive checks and pairs: what they draw, and that their texts can be
read."""

import numpy as np
import pytest
from gaussian_posterior import gaussian

from sbi_models.diagnostics import (
    judge,
    plot_pairs,
    plot_predictive_check,
    plot_rank_histogram,
    plot_tarp,
    plot_verdict,
    predictive_check,
    rank_histogram,
    tarp,
)
from sbi_models.errors import DataError


def names(dim):
    return [f"rate of infection {j} [1/day]" for j in range(dim)]


FIGURES = {
    "ranks": lambda dim: plot_rank_histogram(
        *gaussian(1, n=60, draws=50, dim=dim), variable_names=names(dim)
    ),
    "tarp": lambda dim: plot_tarp(*gaussian(1, n=60, draws=50, dim=dim), variable_names=names(dim)),
    "verdict": lambda dim: plot_verdict(
        judge(*gaussian(1, n=60, draws=50, dim=dim, width=0.7), variable_names=names(dim))
    ),
    "pairs": lambda dim: plot_pairs(
        gaussian(1, n=60, draws=50, dim=dim).samples[0],
        np.zeros(dim),
        None,
        names(dim),
        parameters=names(min(dim, 12)),
    ),
}


@pytest.mark.nightly_cases("pairs-25", "verdict-25")
@pytest.mark.parametrize("dim", [2, 25])
@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_no_text_overlaps(figure, dim):
    """With 2 and with 25 parameters with long names and units, no title, label, note or legend lies on
    another or leaves the figure."""
    drawn = figure(dim)
    drawn.draw_without_rendering()
    of_axes = [(axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts) for axes in drawn.axes]
    texts = [text for text in [*sum(of_axes, ()), *drawn.texts] if text.get_text()]
    boxes = [thing.get_window_extent() for thing in [*texts, *drawn.legends]]
    shrunk = [box.padded(-1.0) for box in boxes]
    assert not [(i, j) for i, a in enumerate(shrunk) for j, b in enumerate(shrunk[:i]) if a.overlaps(b)]
    assert all(box.x0 >= -1 and box.x1 <= drawn.bbox.width + 1 for box in boxes)


def test_the_histogram_shows_counts_and_p():
    """Bars are the counts of `rank_histogram`, the note its p-value by the band."""
    problem = gaussian(2, n=200)
    figure, expected = plot_rank_histogram(*problem), rank_histogram(*problem)
    for j, axes in enumerate(figure.axes):
        np.testing.assert_array_equal(axes.patches[0].get_data().values, expected.counts[:, j])
        assert axes.texts[0].get_text() == f"p = {np.round(expected.p_values_ecdf[j], 3):g}"


def test_the_tarp_figure_shows_the_metric():
    """The line is the observed coverage of `tarp`, in another colour when it is rejected."""
    colors = []
    for width in (1.0, 0.5):
        problem = gaussian(3, width=width)
        line = plot_tarp(*problem).axes[0].lines[1]
        np.testing.assert_allclose(line.get_ydata()[1:-1], tarp(*problem).observed)
        colors.append(line.get_color())
    assert colors[0] != colors[1]


def test_the_verdict_figure_has_a_row_for_each_parameter():
    """Rows are named, dots lie at the estimates, the sentence stands above."""
    verdict = judge(*gaussian(4, n=400, shift=0.5), variable_names=["speed", "spread"])
    figure = plot_verdict(verdict)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["speed", "spread", "jointly"]
    dots = [line.get_xdata()[0] for line in right.lines if len(line.get_xdata()) == 1]
    assert dots[:2] == pytest.approx([row.bias.value for row in verdict.parameters])
    assert figure.get_suptitle() == verdict.sentence


def test_the_predictive_figure_marks_the_data():
    """Each panel has the line of the observed statistic and its p-value."""
    rng = np.random.default_rng(5)
    predictive, observed = rng.normal(size=(2, 100, 20)), rng.normal(size=(2, 20))
    check = predictive_check(predictive, observed)
    figure = plot_predictive_check(predictive, observed, data_set_names=["A", "B"])
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["A", "B"]
    assert [axes.lines[0].get_xdata()[0] for axes in figure.axes] == pytest.approx(check.observed.ravel())
    with pytest.raises(DataError, match="at most 12 data sets"):
        plot_predictive_check(np.zeros((13, 4)), np.zeros(13))


def test_pairs_show_marginals_truth_and_prior():
    """Three chosen parameters give six panels; the truth is marked in each, the prior is outlined on the
    diagonal."""
    samples = gaussian(6, dim=5).samples[0]
    prior = np.random.default_rng(6).normal(size=(400, 5))
    figure = plot_pairs(samples, np.arange(5.0) / 5, prior, list("abcde"), parameters=["e", "a", "c"])
    assert len(figure.axes) == 6
    assert [axes.get_xlabel() for axes in figure.axes[-3:]] == ["e", "a", "c"]
    assert figure.axes[0].lines[0].get_xdata()[0] == 0.8
    assert len(figure.axes[0].patches) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 4, 5)),), "one data set"),
        ((np.zeros((9, 13)),), "1 to 12 parameters"),
        ((np.zeros((9, 2)), np.zeros(3)), r"truth of shape \(2,\)"),
        ((np.zeros((9, 2)), None, np.zeros((9, 3))), r"prior of shape \('m', 2\)"),
        ((np.zeros((9, 2)), None, None, ["a"]), "2 variable_names"),
    ],
)
def test_bad_pairs_are_refused(arguments, message):
    """Several data sets, too many parameters, and truth, prior or names that do not fit raise a DataError."""
    with pytest.raises(DataError, match=message):
        plot_pairs(*arguments)
    with pytest.raises(DataError, match="Unknown parameter 'x'"):
        plot_pairs(np.zeros((9, 2)), parameters=["x"])
