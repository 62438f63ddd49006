"""Every figure shows what it says: panels, labels, and the numbers of its metric."""

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from gaussian_posterior import gaussian
from matplotlib.figure import Figure

from sbi_models.diagnostics import (
    log_gamma,
    marginal_coverage,
    pearson_r,
    plot_calibration_ecdf,
    plot_coverage,
    plot_losses,
    plot_posterior_reference,
    plot_recovery,
    plot_z_score_contraction,
    point_estimate,
    posterior_contraction,
    simultaneous_band,
    z_scores,
)
from sbi_models.errors import ConfigurationError, DataError

PLOTS = [plot_recovery, plot_calibration_ecdf, plot_coverage, plot_z_score_contraction]


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def notes(figure):
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def labels(figure):
    return figure.get_supxlabel(), figure.get_supylabel()


def legend(figure):
    (only,) = figure.legends
    return [text.get_text() for text in only.get_texts()]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    return buffer.getvalue()


# --- all plots of draws against truth


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("dim", [1, pytest.param(2, marks=pytest.mark.nightly), 7])
def test_every_parameter_has_a_named_panel(plot, dim):
    """There is one panel for each parameter, titled with its name, one legend, and both axes are labelled."""
    names = [f"rate {i}" for i in range(dim)]
    figure = plot(*gaussian(0, n=40, dim=dim), variable_names=names)
    assert titles(figure)[:dim] == names
    assert all(labels(figure))
    assert legend(figure)
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("plot", PLOTS)
def test_plots_take_variables_keys_and_names(plot):
    """Plots take mappings as sampling gives them, and the keywords that custom diagnostics pass."""
    samples, truth = gaussian(1, n=40)
    figure = plot(
        {"theta": samples, "other": samples},
        {"theta": truth, "x": truth},
        variable_keys=["theta"],
        variable_names=["a", "b"],
    )
    assert titles(figure)[:2] == ["a", "b"]


@pytest.mark.nightly_cases("plot_calibration_ecdf", "plot_coverage", "plot_z_score_contraction")
@pytest.mark.parametrize("plot", PLOTS)
def test_no_text_overlaps_with_25_panels(plot):
    """With 25 long names, no title overlaps another one or the legend."""
    figure = plot(
        *gaussian(2, n=20, draws=50, dim=25),
        variable_names=[f"a rather long name of parameter {i}" for i in range(25)],
    )
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes] + [figure.legends[0].get_window_extent()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_constant_parameter_is_drawn_without_a_warning(plot):
    """A parameter that is constant in the test data and draws takes its panel and disturbs no other."""
    samples, truth = gaussian(3, n=40)
    samples[..., 0], truth[:, 0] = 0.1, 0.1
    figure = plot(samples, truth)
    assert png(figure)
    low, high = figure.axes[0].get_ylim()
    assert high - low > 0.01


@pytest.mark.parametrize("plot", PLOTS)
def test_one_data_set_is_too_few_to_plot(plot):
    """A single data set raises a DataError before anything is drawn."""
    with pytest.raises(DataError, match="at least 2 data set"):
        plot(*gaussian(4, n=1))


@pytest.mark.nightly
def test_figures_leave_matplotlib_as_it_was():
    """Drawing changes no global setting of Matplotlib, and does not load pyplot."""
    before = dict(mpl.rcParams)
    for plot in PLOTS:
        png(plot(*gaussian(5, n=20)))
    assert dict(mpl.rcParams) == before
    code = (
        "import sys; from sbi_models.diagnostics import plot_losses; plot_losses({'loss': "
        "[1.0]})._repr_png_(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_figures_show_themselves_in_notebooks():
    """A figure is a Matplotlib Figure that gives a notebook its PNG."""
    figure = plot_losses({"loss": [1.0, 0.5]})
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")


# --- recovery


@pytest.mark.parametrize("estimate", ["mean", "median"])
def test_recovery_draws_estimates_at_truths_with_their_correlation(estimate):
    """Dots stand at (truth, estimate), bars span the interval, the note gives r, and both axes have the same
    limits."""
    samples, truth = gaussian(6, n=40)
    figure = plot_recovery(samples, truth, estimate=estimate)
    middle = point_estimate(samples, estimate)
    for j, axes in enumerate(figure.axes):
        bars, dots = axes.collections
        np.testing.assert_allclose(dots.get_offsets(), np.stack([truth[:, j], middle[:, j]], axis=1))
        np.testing.assert_allclose(
            bars.get_segments()[5][:, 1], np.quantile(samples[5, :, j], [0.025, 0.975])
        )
        assert notes(figure)[j] == [f"r = {pearson_r(middle, truth)[j]:.3f}"]
        assert axes.get_xlim() == axes.get_ylim()
    assert labels(figure) == ("true value", f"posterior {estimate}")


def test_all_recovery_dots_are_visible():
    """No dot lies outside its panel, even with outliers."""
    samples, truth = gaussian(7, n=40)
    truth[0], samples[1] = 9.0, -7.0
    for axes in plot_recovery(samples, truth).axes:
        low, high = axes.get_xlim()
        offsets = np.asarray(axes.collections[1].get_offsets())
        assert np.all((offsets > low) & (offsets < high))


def test_most_recovery_bars_are_whole():
    """At least four fifths of the intervals lie inside the panel, even if they are wider than the truths are
    spread."""
    samples, truth = gaussian(16, n=40, width=10.0)
    for axes in plot_recovery(samples, truth).axes:
        low, high = axes.get_ylim()
        ends = np.array(axes.collections[0].get_segments())[..., 1]
        assert np.mean((ends[:, 0] > low) & (ends[:, 1] < high)) >= 0.8


def test_recovery_refuses_an_unknown_estimate():
    """A misspelt estimate raises a ConfigurationError."""
    with pytest.raises(ConfigurationError, match="'mean' or 'median'"):
        plot_recovery(*gaussian(8, n=20), estimate="mode")  # type: ignore[arg-type]


# --- calibration


def test_the_ecdf_figure_shows_band_ecdf_and_log_gamma():
    """The line is the ECDF minus uniform at the points of the band, and the note is log gamma."""
    samples, truth = gaussian(9, n=80)
    figure = plot_calibration_ecdf(samples, truth)
    band = simultaneous_band(80, 200)
    below = np.mean(samples < truth[:, None], axis=1)  # the share of draws below
    for j, axes in enumerate(figure.axes):
        x, y = axes.lines[1].get_data()
        np.testing.assert_allclose(x[1:-1], band.z)
        expected = np.mean(below[:, j, None] * 200 < np.round(band.z * 201) - 0.5, axis=0) - band.z
        np.testing.assert_allclose(y[1:-1], expected, atol=1e-12)
        assert notes(figure)[j] == [f"log γ = {log_gamma(samples, truth)[j]:.2f}".replace("-", "−")]
    assert labels(figure) == ("fractional rank of the truth", "ECDF minus uniform")


def test_a_line_that_leaves_the_band_is_marked():
    """A too narrow parameter is drawn in another colour and named in the legend, beside a right one."""
    samples, truth = gaussian(10, n=400)
    samples[..., 1] = gaussian(10, n=400, width=0.6).samples[..., 1]
    figure = plot_calibration_ecdf(samples, truth)
    assert legend(figure) == ["ranks, inside the band", "ranks, leaving the band", "simultaneous 95 % band"]
    assert figure.axes[0].lines[1].get_color() != figure.axes[1].lines[1].get_color()


# --- coverage


def test_the_coverage_figure_shows_marginal_and_joint_coverage():
    """The lines are the coverage of each parameter, and a last panel shows all jointly."""
    samples, truth = gaussian(11, n=80)
    figure = plot_coverage(samples, truth)
    assert titles(figure) == ["theta_0", "theta_1", "all parameters jointly"]
    expected = marginal_coverage(samples, truth)
    for j in range(2):
        x, y = figure.axes[j].lines[1].get_data()
        np.testing.assert_allclose(x, expected.levels)
        np.testing.assert_allclose(y, expected.observed[:, j])
    assert labels(figure) == ("credible level", "share of data sets covered")


@pytest.mark.parametrize(("dim", "draws", "joint"), [(1, 50, True), (2, 50, False), (6, 7, True)])
def test_the_joint_panel_is_left_out_where_it_says_nothing(dim, draws, joint):
    """One parameter, joint=False, or too few draws for a covariance: only the marginal panels are drawn."""
    assert len(plot_coverage(*gaussian(12, n=40, dim=dim, draws=draws), joint=joint).axes) == dim


# --- z-score and contraction


def test_the_z_score_figure_shows_both_metrics():
    """Dots stand at (contraction, z), and the note gives the median contraction."""
    samples, truth = gaussian(13, n=60)
    figure = plot_z_score_contraction(samples, truth)
    contraction, z = posterior_contraction(samples, truth), z_scores(samples, truth)
    for j, axes in enumerate(figure.axes):
        np.testing.assert_allclose(
            axes.collections[0].get_offsets(), np.stack([contraction[:, j], z[:, j]], axis=1)
        )
        assert notes(figure)[j] == [f"median {np.median(contraction[:, j]):.2f}"]
    assert labels(figure) == ("posterior contraction", "posterior z-score")


def test_extreme_z_scores_and_contractions_stay_in_the_panel():
    """Infinite z-scores and hugely negative contractions are drawn at the edge of the panel."""
    samples, truth = gaussian(14, n=60)
    samples[0] = 3.0
    samples[1] *= 100.0
    for axes in plot_z_score_contraction(samples, truth).axes:
        x, y = np.asarray(axes.collections[0].get_offsets()).T
        assert axes.get_xlim()[0] < x.min() <= -0.5
        assert axes.get_ylim()[1] > np.abs(y).max() > 3.9


# --- losses


def test_losses_are_drawn_by_epoch_with_the_best_one_marked():
    """Both losses are drawn from epoch 1, gaps where not finite, and the lowest validation loss is named."""
    figure = plot_losses({"loss": [3.0, 2.0, 1.5], "val_loss": [3.0, float("nan"), 2.5], "other": [1.0]})
    train, val, ring = figure.axes[0].lines
    assert figure.axes[0].get_xlim()[1] > 3.0
    assert figure.axes[0].get_ylim()[1] > 3.0
    np.testing.assert_array_equal(train.get_xydata(), [[1, 3.0], [2, 2.0], [3, 1.5]])
    np.testing.assert_array_equal(val.get_ydata(), [3.0, np.nan, 2.5])
    np.testing.assert_array_equal(ring.get_xydata(), [[3, 2.5]])
    assert legend(figure) == ["training", "validation"]
    assert notes(figure) == [["lowest validation loss 2.5, epoch 3"]]
    assert labels(figure) == ("epoch", "loss")


def test_losses_of_members_are_thin_lines():
    """The losses of an ensemble's members are drawn beside their mean, up to the last epoch of each."""
    losses = {
        "loss": [3.0, 2.0],
        "val_loss": [4.0, 3.0],
        "a/loss": [2.0, 1.0],
        "b/loss": [4.0],
        "a/val_loss": [5.0, 2.0],
    }
    lines = plot_losses(losses).axes[0].lines
    thin = {
        tuple(line.get_ydata()) for line in lines if line.get_linewidth() < 1 and line.get_linestyle() == "-"
    }
    assert thin == {(2.0, 1.0), (4.0,), (5.0, 2.0)}
    assert [
        list(line.get_ydata()) for line in lines if line.get_linewidth() > 1 and len(line.get_ydata()) == 2
    ] == [[3.0, 2.0], [4.0, 3.0]]


def test_losses_need_no_validation():
    """Without val_loss, only the training loss is drawn."""
    assert legend(plot_losses({"loss": [1.0, 0.5]})) == ["training"]
    assert legend(plot_losses({"loss": [1.0], "val_loss": []})) == ["training"]


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({"los": [1.0]}, "Did you mean 'los'"),
        ({}, "'loss', got none"),
        ({"loss": []}, "one number an epoch"),
        ({"loss": ["a"]}, "real numbers"),
    ],
)
def test_bad_histories_are_refused(history, message):
    """A history without a training loss raises a DataError."""
    with pytest.raises(DataError, match=message):
        plot_losses(history)


# --- amortized versus exact


def reference(datasets=3, quantities=2):
    samples = gaussian(15, n=datasets, draws=2000, dim=quantities).samples
    grid = np.linspace(-6, 6, 401)
    mean, sd = samples.mean(axis=1)[..., None], samples.std(axis=1)[..., None]
    return samples, grid, np.exp(-0.5 * ((grid - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))


def test_reference_panels_are_rows_of_data_sets_and_columns_of_quantities():
    """Histogram, exact curve and vertical line of each data set and quantity stand in their panel, and the
    legend names them once."""
    samples, grid, density = reference()
    truth = np.arange(6.0).reshape(3, 2) / 10
    figure = plot_posterior_reference(
        samples,
        grid,
        density,
        truth,
        variable_names=["speed", "spread"],
        data_set_names=["A", "B", "C"],
        truth_label="today's value",
    )
    assert titles(figure) == ["speed", "spread", "", "", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["A", "", "B", "", "C", ""]
    for i, axes in enumerate(figure.axes):
        curve, line = axes.lines
        np.testing.assert_array_equal(curve.get_ydata(), density[i // 2, i % 2])
        assert line.get_xdata()[0] == truth.ravel()[i]
    assert legend(figure) == ["amortized posterior", "exact posterior", "today's value"]
    assert png(figure)


def test_reference_histograms_are_densities_of_the_draws():
    """Bars integrate to the share of draws inside the panel, and follow the exact density."""
    samples, grid, density = reference(1, 1)
    (axes,) = plot_posterior_reference(samples, grid, density).axes
    heights, edges, _ = axes.patches[0].get_data()
    assert np.sum(heights * np.diff(edges)) == pytest.approx(1.0)
    middle = (edges[1:] + edges[:-1]) / 2
    assert np.max(np.abs(heights - np.interp(middle, grid, density[0, 0]))) < 0.25 * density.max()


def test_draws_beyond_the_grid_are_not_hidden():
    """If the amortized posterior lies elsewhere than the grid, the panel is widened to show it."""
    samples, grid, density = reference(1, 1)
    (axes,) = plot_posterior_reference(samples + 50.0, grid, density).axes
    heights, edges, _ = axes.patches[0].get_data()
    assert np.sum(heights * np.diff(edges)) == pytest.approx(1.0, abs=0.003)
    assert axes.get_xlim()[1] > 50


@pytest.mark.parametrize(("datasets", "quantities"), [(5, 1), (1, 5)])
def test_one_row_or_column_of_references_becomes_a_grid(datasets, quantities):
    """With one quantity panels are named after data sets, with one data set after quantities, and fill a
    grid."""
    figure = plot_posterior_reference(*reference(datasets, quantities))
    word = "data set" if quantities == 1 else "quantity"
    assert titles(figure) == [f"{word} {i}" for i in range(1, 6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.zeros((3, 4))}, r"samples of shape \(num_datasets, num_samples, n_quantities\)"),
        ({"grid": np.linspace(-6, 6, 7)}, "same number of points"),
        ({"grid": np.linspace(6, -6, 401)}, "increases"),
        ({"density": -np.ones(401)}, "0 or more.*logarithm"),
        ({"density": np.ones((4, 2, 401))}, r"density of shape \(3, 2, 401\), got \(4, 2, 401\)"),
        ({"density": np.full(401, np.nan)}, "finite density"),
        ({"truth": np.zeros((2, 3))}, r"truth of shape \(3, 2\)"),
        ({"data_set_names": ["A"]}, "3 data_set_names, got 1"),
        ({"variable_names": ["a", "b", "c"]}, "2 variable_names, got 3"),
    ],
)
def test_bad_references_are_refused(change, message):
    """Shapes, order or signs that do not fit raise a DataError."""
    samples, grid, density = reference()
    with pytest.raises(DataError, match=message):
        plot_posterior_reference(**{"samples": samples, "grid": grid, "density": density, **change})
