"""What a composition learns of the errors of scores: from fresh items, from features, and from a training."""

import math
import re

import numpy as np
import pytest
import torch
from exact_items import LIKELIHOOD, GaussianItems, exact_posterior, gaussian_data, normal, rng

from sbi_models.approximators.composition.items import DiffusionItems, sharpening
from sbi_models.approximators.composition.report import CompositionReport
from sbi_models.approximators.composition.score import ComposedScore, share_of_bias, shift_in_sds
from sbi_models.approximators.composition.shared_bias import SharedBias
from sbi_models.networks import DiffusionModel

THETA = torch.tensor([0.4, -0.9], dtype=torch.float64)
FISHER = torch.linalg.inv(LIKELIHOOD)
EYE = torch.eye(2, dtype=torch.float64)


def composed(n=20, **errors):
    return ComposedScore(GaussianItems(gaussian_data(THETA, n, 1), **errors), torch.neg, 0.05)


# --- the composed score


@pytest.mark.parametrize("noise", [0.001, 0.05, 0.3])
def test_the_composed_score_of_gaussians_is_exact(noise):
    """At any noise the composed score is that of the posterior given all items, at no noise; its start is the
    exact Gaussian."""
    items = GaussianItems(gaussian_data(THETA, 20, 1))
    made, theta = ComposedScore(items, torch.neg, noise), normal(9, 2, seed=2)
    mean, covariance = exact_posterior(items.x)
    torch.testing.assert_close(made(theta), -(theta - mean) @ torch.linalg.inv(covariance))
    assert made.evaluations == 9
    center, precision = made.start()
    torch.testing.assert_close(center, mean)
    torch.testing.assert_close(precision, torch.linalg.inv(covariance))


def test_a_start_needs_no_exact_gaussians():
    """Where Gaussians of items, wider than the prior, leave no precision, that of the start is positive all
    the same."""
    items = GaussianItems(gaussian_data(THETA, 20, 1))
    items.covariance = 1.5 * EYE
    center, precision = ComposedScore(items, torch.neg, 0.05).start()
    assert center.isfinite().all()
    assert torch.linalg.eigvalsh(precision).min() > 0


@pytest.mark.parametrize("d", [1, 3])
def test_the_share_of_a_bias_that_is_removed(d):
    """None of what is below the 99 % quantile of noise, all above three times that, half in the middle; 1 %
    of pure noise is touched."""
    quantile = {1: 6.6349, 3: 11.3449}[d]
    variance = torch.diag(torch.arange(1.0, d + 1).double())

    def bias(squared):
        return variance.diagonal().sqrt() * math.sqrt(squared / d)

    for factor, share in ((0.0, 0.0), (0.99, 0.0), (1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (50.0, 1.0)):
        assert share_of_bias(bias(factor * quantile), variance) == pytest.approx(share, abs=1e-3)
    touched = [
        share_of_bias(noise * variance.diagonal().sqrt(), variance) > 0 for noise in normal(4000, d, seed=1)
    ]
    assert np.mean(touched) == pytest.approx(0.01, abs=0.007)


def test_shifts_are_in_sds_of_the_posterior():
    """A constant added to the score of a Gaussian moves its mean by C g; the measure is the rms of that in
    whitened components."""
    precision, score = torch.linalg.inv(LIKELIHOOD), torch.tensor([0.3, 2.0], dtype=torch.float64)
    moved = torch.linalg.solve(torch.linalg.cholesky(LIKELIHOOD), LIKELIHOOD @ score)
    assert shift_in_sds(score, precision) == pytest.approx(math.sqrt(float(moved.square().mean())))
    assert shift_in_sds(torch.tensor([0.1]).double(), torch.tensor([[100.0]]).double()) == pytest.approx(0.01)


def test_sharpening_never_more_than_doubles():
    """I + s^2 C^(-1) of Gaussians wider than the noise; narrower ones count as wide as it."""
    covariances = torch.stack([LIKELIHOOD, torch.diag(torch.tensor([1e-8, 1.0]).double())])
    got = sharpening(covariances, 0.1)
    torch.testing.assert_close(got[0], EYE + 0.01 * FISHER)
    torch.testing.assert_close(got[1], torch.diag(torch.tensor([2.0, 1.01]).double()))


# --- what a training leaves


def polynomial(theta):
    return torch.stack(
        [0.2 + 0.1 * theta[:, 0] - 0.3 * theta[:, 0] * theta[:, 1], 0.05 * theta[:, 1] ** 3], dim=1
    )


def residuals(n, seed):
    """theta and residuals whose noise is larger where theta is."""
    theta = normal(n, 2, seed=seed)
    return theta, polynomial(theta) + normal(n, 2, seed=seed + 1) * (0.3 * theta[:, :1]).exp()


def test_a_shared_bias_is_learned_with_its_uncertainty():
    """A polynomial of theta is recovered; over 200 repetitions errors have the variance that the regression
    says, within 40 % at each of three points and 15 % over all, and no bias."""
    at = torch.tensor([[0.0, 0.0], [1.0, -1.0], [-0.5, 2.0]], dtype=torch.float64)
    learned = SharedBias(2)
    assert not learned.is_known
    errors, variances = [], []
    for seed in range(200):
        learned.fit(*residuals(2000, 10 * seed))
        got = learned(at)
        errors.append(got.correction - polynomial(at))
        variances.append(got.variance)
    assert learned.is_known
    errors, variances = torch.stack(errors), torch.stack(variances)
    standard = errors / variances.sqrt()
    assert (standard.mean(dim=0).abs() < 5 / math.sqrt(200)).all()
    torch.testing.assert_close(
        standard.square().mean(dim=0),
        torch.ones(3, 2, dtype=torch.float64),
        rtol=0,
        atol=4 * math.sqrt(2 / 200),
    )
    assert standard.square().mean() == pytest.approx(1, abs=0.15)
    learned.fit(*residuals(200_000, 7))
    torch.testing.assert_close(learned(at).correction, polynomial(at), rtol=0, atol=0.05)


@pytest.mark.parametrize(("location", "scale"), [((0.0, 0.0), (1.0, 1.0)), ((5.0, -2.0), (3.0, 0.1))])
def test_a_shared_bias_does_not_run_away(location, scale):
    """Beyond 3.5 sds of the data, of each parameter and on either side, the polynomial stays what it is
    there; up to 3.5 sds it still changes."""
    theta, errors = residuals(5000, 1)
    learned, location, scale = SharedBias(2), torch.tensor(location).double(), torch.tensor(scale).double()
    learned.fit(location + scale * theta, errors)
    mean, sd = location + scale * theta.mean(dim=0), scale * theta.std(dim=0)
    sides = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    inside, edge, *beyond = (learned(mean + sds * sides * sd) for sds in (3.3, 3.5, 3.6, 35.0, 1000.0))
    for got in beyond:
        torch.testing.assert_close(got.correction, edge.correction)
        torch.testing.assert_close(got.variance, edge.variance)
    assert ((inside.correction - edge.correction).abs() > 1e-3).all()
    assert (inside.variance < edge.variance).all()


def test_a_shared_bias_does_not_depend_on_units():
    """Parameters in other units, each its own, give the same correction; errors in a unit of 1e-6 or 1e6 give
    it in that unit, with sds in it."""
    theta, errors = residuals(2000, 3)
    at = torch.tensor([[0.3, -1.0], [-2.0, 0.5]], dtype=torch.float64)
    plain, other = SharedBias(2), SharedBias(2)
    plain.fit(theta, errors)
    units, start = torch.tensor([1e3, 1e-2], dtype=torch.float64), torch.tensor([7.0, -40.0]).double()
    for unit in (1e-6, 1.0, 1e6):
        other.fit(start + units * theta, unit * errors)
        got = other(start + units * at)
        torch.testing.assert_close(got.correction / unit, plain(at).correction, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.variance / unit**2, plain(at).variance, rtol=1e-4, atol=0)


@pytest.mark.parametrize("d", [1, 2, 5, 14])
def test_a_shared_bias_is_saved(d):
    """Its state has all that it knows, and `is_known`, for any number of parameters; theta of any location
    and scale."""
    learned = SharedBias(d)
    theta = 1e3 + 1e-3 * normal(3000, d, seed=1)
    learned.fit(theta, 0.2 + normal(3000, d, seed=2))
    again = SharedBias(d)
    again.load_state_dict(learned.state_dict())
    assert again.is_known
    for a, b in zip(learned(theta[:5]), again(theta[:5]), strict=True):
        assert torch.equal(a, b)
    got = again(1e3 + 1e-3 * normal(200, d, seed=3))
    assert float(((got.correction - 0.2).square() / got.variance).mean()) < 2
    assert got.variance.median() < 0.05


# --- items of a network


@pytest.mark.parametrize("preconditioning", ["unit", "gaussian"])
def test_items_of_a_network_of_zero_are_standard_normal(preconditioning):
    """An untrained network says N(0, I) of every item: Gaussians, scores at a noise, own scores and log
    densities are the formulas."""
    network = DiffusionModel(widths=(8,), preconditioning=preconditioning)
    network.build(2, 3)
    items, theta = DiffusionItems(network, torch.randn(5, 3, generator=rng(1)), seed=1), normal(4, 2, seed=2)
    means, covariances = items.gaussians()
    slack = 0.0 if preconditioning == "gaussian" else 0.6  # of 64 draws
    torch.testing.assert_close(means, torch.zeros(5, 2).double(), rtol=0, atol=1e-5 + slack)
    torch.testing.assert_close(covariances, EYE.expand(5, 2, 2), rtol=0, atol=1e-3 + slack)
    for noise in (0.02, 0.2):
        torch.testing.assert_close(
            items.score(theta, noise, slice(1, 4)),
            (-theta / (1 + noise**2)).expand(3, 4, 2),
            rtol=0,
            atol=0.01,
        )
    exact = torch.distributions.MultivariateNormal(torch.zeros(2).double(), EYE).log_prob(theta)
    with torch.no_grad():
        torch.testing.assert_close(items.log_density(theta), exact.expand(5, 4), rtol=0, atol=0.01)
    if preconditioning == "gaussian":
        torch.testing.assert_close(
            items.own_scores(normal(5, 2, seed=3), 0.02), -normal(5, 2, seed=3), rtol=0, atol=0.01
        )
    assert items.features.shape == (5, 3)


# --- the report

FINE = {
    "method": "calibrated",
    "num_items": 10,
    "bias_shift": 0.1,
    "calibration_residual": 0.1,
    "width_ratio": 1.1,
    "sbc_p_value": 0.3,
    "sbc_shift": 0.1,
    "sbc_variance": 1.1,
    "explained": 0.999,
    "acceptance": 0.7,
    "last_step": 0.001,
    "calibrated": True,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"calibrated": False, "bias_shift": 0.51},
            r"all 10 items share.*about 0\.5 of its standard deviations.*pass the simulator",
        ),
        (
            {"bias_shift": 2.01},
            r"10 items share would move the posterior by 2\.0 .*so large a correction is not to be trusted",
        ),
        ({"calibration_residual": 0.26, "simulations": 100}, r"uncertain by 0\.26.*calibration_simulations"),
        (
            {"calibration_residual": 0.26, "calibrated": False},
            r"uncertain by 0\.26.*pass the simulator, or compose fewer items",
        ),
        (
            {"sbc_p_value": 0.0009, "sbc_shift": -0.8, "sbc_variance": 4.0},
            r"p = 0\.0009.*off by about 0\.8 .* 2\.0 times",
        ),
        ({"sbc_p_value": 0.009, "bias_shift": 0.6}, r"moved the posterior by 0\.6 .*p = 0\.009"),
        ({"width_ratio": 2.1}, r"2\.1 times as wide"),
        ({"width_ratio": 0.4}, r"0\.4 times as wide"),
        ({"explained": 0.94}, r"explains 0\.940 of the composed score.*method='gauss'"),
        ({"last_step": 0.11}, r"mode was not found.*0\.11"),
        ({"acceptance": 0.29}, r"Only 29% of the steps"),
        ({"notes": ("Something else.",)}, "Something else"),
    ],
)
def test_each_threshold_has_its_warning(changes, message):
    """Beyond a threshold there is one reason, in words with the number and a cure; before it, or without the
    number, there is none."""
    (reason,) = CompositionReport(**FINE | changes).warnings
    assert re.search(message, reason)
    report = CompositionReport(**FINE | changes)
    assert report.as_dict()["warnings"] == [reason]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bias_shift": 50.0, "simulations": 100},
        {"bias_shift": 1.99},
        {"calibrated": False, "bias_shift": 0.49},
        {"calibration_residual": 0.24},
        {"sbc_p_value": 0.002},
        {"sbc_p_value": 0.011, "bias_shift": 0.6},
        {"width_ratio": 1.9},
        {"explained": 0.96},
        {"last_step": 0.09},
        {"acceptance": 0.31},
    ],
)
def test_what_is_fine_has_no_warning(changes):
    """On the good side of each threshold, a removed bias of any size, and methods without numbers are not
    warned of."""
    assert CompositionReport(**FINE | changes).warnings == ()
    assert CompositionReport(method="gauss", num_items=3).warnings == ()
