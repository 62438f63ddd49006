"""The calibrated composition and its rivals, against exact posteriors of many items."""

import math

import numpy as np
import pytest
import torch
from exact_items import (
    LIKELIHOOD,
    Beside,
    GaussianItems,
    SquareItems,
    against,
    exact_posterior,
    exact_square_posterior,
    fresh_gaussians,
    fresh_squares,
    gaussian_data,
    moments,
    normal,
    shift_of,
    square_data,
)
from scipy import stats

from sbi_models.approximators.composition.calibrated import FEW_ITEMS, calibrated
from sbi_models.approximators.composition.methods import METHODS
from sbi_models.approximators.composition.plan import Plan
from sbi_models.approximators.composition.shared_bias import SharedBiasEstimate
from sbi_models.errors import DataError, SimulationError

THETA = torch.tensor([0.4, -0.9], dtype=torch.float64)


def plan(n, seed=1, **arguments):
    settings = {"noise": 0.02, "simulations": max(20_000, 400 * n), "seed": seed} | arguments
    return Plan(**settings)


def compose(items, *, draws=2000, fresh=None, prior=torch.neg, method=None, **arguments):
    d = items.theta_dim
    if method is None:
        return calibrated(items, prior, moments(d), draws, plan(len(items), **arguments), fresh=fresh)
    return METHODS[method](items, prior, moments(d), draws, plan(len(items), **arguments), fresh=fresh)


@pytest.mark.nightly_cases("True-1000")
@pytest.mark.parametrize("n", [1, 2, 10, 100, 1000])
@pytest.mark.parametrize("simulator", [False, True])
def test_gaussian_items_with_exact_scores(n, simulator):
    """For 1 to 1000 items the mean is exact within 0.1 sds, every sd within 5 %, with or without fresh items;
    nothing is doubted but more than 30 of them without, which nothing tests.

    From 10 items on, two parameters take at most 200 scores an item.
    """
    x = gaussian_data(THETA, n, seed=n)
    items = GaussianItems(x)
    draws, report = compose(items, fresh=fresh_gaussians() if simulator else None)
    error, ratios = against(draws, *exact_posterior(x))
    assert error <= 0.1
    np.testing.assert_allclose(ratios, 1, atol=0.05)
    untested = n > 30 and not simulator
    unknown = ["Nothing is known of the errors"] * (n > 100 and not simulator)
    starts = [*unknown, *[f"The posterior given {n} items is not tested"] * untested]
    assert len(report.warnings) == len(starts)
    assert all(warning.startswith(start) for warning, start in zip(report.warnings, starts, strict=True))
    assert (report.num_modes, report.mode_weights, report.num_items) == (1, (1.0,), n)
    assert report.explained > 0.999
    assert report.calibrated == (simulator and n >= FEW_ITEMS)
    if n >= 10:
        assert report.evaluations <= 200
        assert items.calls <= n * report.evaluations
    if simulator and n > 1:
        assert report.sbc_p_value > 0.001
    if n >= FEW_ITEMS and simulator:
        assert report.bias_shift < 4 * report.calibration_residual
        assert report.width_ratio == pytest.approx(1, abs=0.05)


@pytest.mark.nightly_cases("5")
@pytest.mark.parametrize("d", [1, 5])
def test_other_numbers_of_parameters(d):
    """With one parameter, on a line, and with five, the draws are those of the exact posterior."""
    likelihood = 0.5 * torch.eye(d, dtype=torch.float64) + 0.3
    x = gaussian_data(torch.linspace(-1, 1, d, dtype=torch.float64), 30, 1, likelihood)
    for fresh in (None, fresh_gaussians(likelihood)):
        draws, report = compose(GaussianItems(x, likelihood), fresh=fresh, simulations=60_000)
        error, ratios = against(draws, *exact_posterior(x, likelihood))
        assert error <= 0.1
        np.testing.assert_allclose(ratios, 1, atol=0.05)
        assert report.warnings == ()


@pytest.mark.nightly
@pytest.mark.parametrize("n", [10, 300])
@pytest.mark.parametrize("d", [1, 2])
def test_errors_that_items_share_are_calibrated_away(n, d):
    """With an error of all scores the calibrated draws are right, and those without a simulator are off by
    what bias_shift says."""
    error = torch.tensor([0.3, -0.2], dtype=torch.float64)[:d]
    likelihood = LIKELIHOOD[:d, :d]
    x = gaussian_data(THETA[:d], n, 3, likelihood)
    items = GaussianItems(x, likelihood, shared=error.expand_as)
    right, report = compose(items, fresh=fresh_gaussians(likelihood, shared=items.shared))
    mean, covariance = exact_posterior(x, likelihood)
    off, ratios = against(right, mean, covariance)
    assert off <= 0.2
    np.testing.assert_allclose(ratios, 1, atol=0.06)
    assert report.warnings == ()
    assert report.bias_shift == pytest.approx(shift_of(error, n, covariance), rel=0.15)
    wrong, _ = compose(items)
    assert against(wrong, mean, covariance)[0] == pytest.approx(report.bias_shift, rel=0.2)


def test_a_simulator_that_fails_near_the_posterior_costs_the_calibration_alone():
    """The draws are those of the scores as they are, and a warning has the simulator's words."""

    def fresh(theta, seed):
        raise SimulationError("probabilities above 1")

    x = gaussian_data(THETA, 10, seed=1)
    draws, report = compose(GaussianItems(x), fresh=fresh)
    assert not report.calibrated
    assert any("probabilities above 1" in warning for warning in report.warnings)
    assert against(draws, *exact_posterior(x))[0] <= 0.1


@pytest.mark.parametrize("d", [1, 2])
def test_what_a_training_has_learned_stands_in_for_a_simulator(d):
    """With the shared error known up to a small variance, draws without a simulator are right, and unsure
    knowledge is reported."""
    likelihood, n = LIKELIHOOD[:d, :d], 100
    x = gaussian_data(THETA[:d], n, 3, likelihood)
    items = GaussianItems(x, likelihood, shared=lambda theta: 0.3 + 0 * theta)

    def learned(variance):
        return lambda theta: SharedBiasEstimate(-theta + 0.3, torch.full_like(theta, variance))

    mean, covariance = exact_posterior(x, likelihood)
    draws, report = compose(items, learned=learned(1e-8))
    assert against(draws, mean, covariance)[0] <= 0.1
    assert report.calibrated
    assert report.bias_shift == pytest.approx(
        shift_of(torch.full((d,), 0.3, dtype=torch.float64), n, covariance), rel=0.05
    )
    assert "is not tested" in report.warnings[0]
    assert ["so large a correction" in words for words in report.warnings[1:]] == [True] * (
        report.bias_shift > 2
    )
    draws, report = compose(items, learned=learned(0.1))
    assert against(draws, mean, covariance)[0] > 1
    assert not report.calibrated
    assert report.calibration_residual == pytest.approx(
        math.sqrt(n**2 * 0.1 * float(covariance.trace()) / d), rel=0.05
    )
    assert len(report.warnings) == 3


@pytest.mark.parametrize("simulator", [False, True])
@pytest.mark.parametrize("n", [1, pytest.param(3, marks=pytest.mark.nightly), 10])
def test_two_modes_have_their_weights(n, simulator):
    """theta from data of theta^2: each half of the draws is exact by a KS test, and the weight of the upper
    mode within 0.05."""
    x = square_data(0.9, n, seed=3)
    draws, report = compose(
        SquareItems(x),
        fresh=fresh_squares() if simulator else None,
        prior=lambda theta: 0.5 - theta,
        draws=2000,
    )
    grid, p = exact_square_posterior(x)
    assert abs(float((draws > 0).double().mean()) - p[grid > 0].sum()) < 0.05
    for side in (-1, 1):
        half = np.where(side * grid > 0, p, 0.0).cumsum()
        got = draws[side * draws > 0].numpy()
        assert stats.kstest(got, lambda u, half=half: np.interp(u, grid, half / half[-1])).pvalue > 0.001
    if n > 1:
        assert report.num_modes == 2
        assert sum(report.mode_weights) == pytest.approx(1)
        assert min(report.mode_weights) == pytest.approx(p[grid < 0].sum(), abs=0.05)


@pytest.mark.nightly_cases("True-0.02")
@pytest.mark.parametrize("noise", [0.02, 0.05])
@pytest.mark.parametrize("simulator", [False, True])
def test_two_modes_in_the_plane(simulator, noise):
    """With a second parameter beside the first, pilots find both modes; their weights are within 0.05, each
    with exact moments."""
    n, unit = 10, torch.ones(1, 1, dtype=torch.float64)
    x, y = square_data(0.9, n, seed=3), gaussian_data(THETA[:1], n, 7, unit)

    def fresh(theta, seed):
        linear = GaussianItems(theta[:, 1:] + normal(len(theta), 1, seed=(seed >> 1) + 1), unit)
        yield (
            torch.arange(len(theta)),
            Beside(SquareItems(square_data(theta[:, 0], len(theta), seed >> 1)), linear),
        )

    def prior(theta):
        return torch.stack([0.5 - theta[:, 0], -theta[:, 1]], dim=1)

    items = Beside(SquareItems(x), GaussianItems(y, unit))
    draws, report = compose(
        items, fresh=fresh if simulator else None, prior=prior, draws=2000, simulations=4000, noise=noise
    )
    grid, p = exact_square_posterior(x)
    assert report.num_modes == 2
    assert abs(float((draws[:, 0] > 0).double().mean()) - p[grid > 0].sum()) < 0.05
    error, ratios = against(draws[:, 1:], *exact_posterior(y, unit))
    assert error < 0.1
    assert ratios == pytest.approx(1, abs=0.06)
    for side in (-1, 1):
        half = np.where(side * grid > 0, p, 0.0)
        half /= half.sum()
        mean = half @ grid
        sd = math.sqrt(half @ (grid - mean) ** 2)
        got = draws[side * draws[:, 0] > 0, 0].numpy()
        assert abs(got.mean() - mean) < 0.15 * sd
        assert got.std() == pytest.approx(sd, rel=0.08)


def test_errors_of_densities_that_items_share_are_calibrated_away():
    """Heights of modes that every item tilts by 0.3 nats between the modes are put right by the simulator,
    and wrong without."""
    x = square_data(0.9, 10, seed=5)
    grid, p = exact_square_posterior(x)
    got = []
    for fresh in (None, fresh_squares(tilt=0.17)):
        draws, _ = compose(
            SquareItems(x, tilt=0.17), fresh=fresh, prior=lambda theta: 0.5 - theta, draws=2000
        )
        got.append(abs(float((draws > 0).double().mean()) - p[grid > 0].sum()))
    assert got[0] > 0.1
    assert got[1] < 0.05


@pytest.mark.parametrize("d", [1, 2])
def test_a_learned_error_that_runs_away_makes_no_mode(d):
    """A correction that is right where the posterior is, and grows as a power of ten sds beyond, leaves the
    posterior as it is."""
    likelihood = LIKELIHOOD[:d, :d]
    x = gaussian_data(THETA[:d], 5, 3, likelihood)
    error = torch.full((d,), 0.2, dtype=torch.float64)
    mean, covariance = exact_posterior(x, likelihood)
    items = GaussianItems(x, likelihood, shared=error.expand_as)

    def learned(theta):
        away = (theta - mean) / covariance.diagonal().sqrt()
        return SharedBiasEstimate(
            error - theta + 3 * away.sign() * (away.abs() - 5).clamp_min(0) ** 3, torch.full_like(theta, 1e-6)
        )

    draws, report = compose(items, learned=learned)
    off, ratios = against(draws, mean, covariance)
    assert off <= 0.1
    np.testing.assert_allclose(ratios, 1, atol=0.06)
    assert report.num_modes == 1


@pytest.mark.parametrize("n", [2, 30])
def test_gauss_is_exact_for_gaussians(n):
    """The precision-weighted diffusion of Gaussian items has the exact mean and sds."""
    x = gaussian_data(THETA, n, seed=4)
    draws, report = compose(GaussianItems(x), method="gauss", draws=2000)
    error, ratios = against(draws, *exact_posterior(x))
    assert error <= 0.08
    np.testing.assert_allclose(ratios, 1, atol=0.06)
    assert (report.method, report.evaluations) == ("gauss", 200 * 2000)


def test_langevin_is_close():
    """Annealed Langevin steps have the mean within 0.3 sds and sds within 10 % at ten items."""
    x = gaussian_data(THETA, 10, seed=4)
    draws, report = compose(GaussianItems(x), method="langevin", draws=1000)
    error, ratios = against(draws, *exact_posterior(x))
    assert error <= 0.3
    np.testing.assert_allclose(ratios, 1, atol=0.1)
    assert (report.method, report.evaluations) == ("langevin", 480 * 1000)


def test_plain_sums_of_diffused_scores_are_too_narrow():
    """The sum of diffused scores, of exact ones too, has a mean within half an sd and sds of 0.5 to 0.9 of
    the exact ones at ten items."""
    x = gaussian_data(THETA, 10, seed=4)
    draws, _ = compose(GaussianItems(x), method="plain", draws=500)
    error, ratios = against(draws, *exact_posterior(x))
    assert error < 0.5
    assert 0.5 < math.exp(np.log(ratios).mean()) < 0.9


def test_methods_that_diverge_say_so():
    """Draws that are not finite are an error that names the method and the way out, not an answer."""
    items = GaussianItems(
        gaussian_data(THETA, 10, seed=4), shared=lambda theta: torch.full_like(theta, math.nan)
    )
    for method in ("plain", "langevin", "gauss"):
        with pytest.raises(
            DataError, match=rf"'{method}' diverged in 5 of 5 draws of 10 items\. Use method='calibrated'"
        ):
            compose(items, method=method, draws=5)


@pytest.mark.nightly
def test_the_seed_decides():
    """The same seed gives the same draws to the bit, another one others; the global random state matters to
    none."""
    items = GaussianItems(gaussian_data(THETA, 10, seed=4))
    for method in METHODS:
        torch.manual_seed(0)
        np.random.seed(0)
        first, _ = compose(items, method=method, draws=20, fresh=fresh_gaussians())
        torch.manual_seed(1)
        np.random.seed(1)
        again, _ = compose(items, method=method, draws=20, fresh=fresh_gaussians())
        other, _ = compose(items, method=method, draws=20, fresh=fresh_gaussians(), seed=2)
        assert torch.equal(first, again)
        assert not torch.any(first == other)


def test_any_number_of_draws():
    """One draw, and fewer draws than modes, are draws; random numbers of modes that get none are not asked
    for."""
    x = normal(3, seed=1).square()
    for draws in (1, 2, 5):
        assert compose(SquareItems(x), prior=lambda theta: 0.5 - theta, draws=draws)[0].shape == (draws, 1)
        assert compose(GaussianItems(gaussian_data(THETA, 4, seed=4)), draws=draws)[0].shape == (draws, 2)
