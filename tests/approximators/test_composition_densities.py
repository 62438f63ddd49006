"""What a composition makes of scores: polynomial log densities, modes, densities on a line, and heights of
modes; against formulas."""

import math

import numpy as np
import pytest
import torch
from exact_items import GaussianItems, SquareItems, fresh_squares, gaussian_data, normal, rng, square_data
from scipy import integrate, stats

from sbi_models.approximators.composition.grid_density import AdaptiveGrid
from sbi_models.approximators.composition.modes import (
    evidence,
    find_modes,
    log_ratio_offset,
    newton,
    relative_log_densities,
)
from sbi_models.approximators.composition.polynomial_density import (
    Monomials,
    PolynomialDensity,
    degree_for,
    fit_density,
    fit_points,
)
from sbi_models.approximators.composition.score import ComposedScore


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def scores_of(log_density):
    """The score of a log density of points (m, d), by autograd."""

    def score(theta):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            return torch.autograd.grad(log_density(theta).sum(), theta)[0]

    return score


# --- polynomial log densities


@pytest.mark.parametrize(("d", "degree"), [(1, 4), (2, 4), (4, 4), (6, 3), (9, 2)])
def test_monomials(d, degree):
    """All products up to the degree, once each and 1 first; their slopes are those of autograd."""
    monomials, u = Monomials(d, degree), normal(11, d, seed=1)
    exponents = monomials.exponents
    assert len(exponents) == math.comb(d + degree, degree) == len({tuple(row) for row in exponents.tolist()})
    assert exponents[0].sum() == 0
    assert exponents.sum(dim=1).max() == degree
    torch.testing.assert_close(monomials(u), (u[:, None] ** exponents).prod(dim=2))
    coefficients = normal(len(exponents), seed=2)
    exact = scores_of(lambda u: monomials(u) @ coefficients)(u)
    torch.testing.assert_close((monomials(u) @ (monomials.slopes @ coefficients).mT), exact)


@pytest.mark.parametrize("d", [1, 2, 3, 6, 10])
def test_a_polynomial_is_found_from_its_scores(d):
    """Exact scores of a polynomial log density near the normal give its coefficients; the constant is 0 and
    R^2 is 1."""
    degree = degree_for(d)
    monomials = Monomials(d, degree)
    total = monomials.exponents.sum(dim=1)
    exact = 0.05 * normal(len(total), seed=3) * (total > 0)
    exact[(monomials.exponents == 2).any(dim=1) & (total == 2)] -= 0.5
    u = fit_points(d, degree, rng(4))
    assert len(u) * d >= 2 * len(total)
    torch.testing.assert_close(u[: len(u) // 2], -u[len(u) // 2 :])
    found = fit_density(u, scores_of(lambda u: monomials(u) @ exact)(u), degree)
    torch.testing.assert_close(found.coefficients, exact, rtol=0, atol=0.01)
    assert found.explained > 0.999
    at = normal(50, d, seed=5)
    value, slope = found.density_and_score(at)
    torch.testing.assert_close(value, monomials(at) @ exact, rtol=0, atol=0.1)
    torch.testing.assert_close(slope, scores_of(lambda u: monomials(u) @ exact)(at), rtol=0, atol=0.1)


def test_noise_in_scores_is_seen():
    """R^2 of held-out scores is that of the noise: half, where noise has the size of the score."""
    u = fit_points(2, 4, rng(1)).repeat(20, 1)
    u = u + 0.1 * normal(*u.shape, seed=2)
    noise = normal(*u.shape, seed=3) * u.std()
    assert fit_density(u, -u + noise, 4).explained == pytest.approx(0.5, abs=0.05)
    assert fit_density(u, -u, 4).explained > 0.9999


def quartic(d=1):
    """log q(u) = -sum u^4 / 4 + u^3 / 6 + u / 5, and its unnormalized density in one dimension."""
    monomials = Monomials(d, 4)
    coefficients = torch.zeros(len(monomials.exponents), dtype=torch.float64)
    for power, value in ((4, -0.25), (3, 1 / 6), (1, 0.2)):
        coefficients[
            (monomials.exponents == power).any(dim=1) & (monomials.exponents.sum(dim=1) == power)
        ] = value
    return PolynomialDensity(monomials, coefficients, 1.0), lambda u: np.exp(-(u**4) / 4 + u**3 / 6 + u / 5)


@pytest.mark.parametrize("d", [1, 2])
def test_masses_and_draws_of_a_density_that_is_not_normal(d):
    """The mass of a skewed quartic is that of quadrature within 0.02 nats; draws follow it by a KS test, and
    are independent."""
    surrogate, density = quartic(d)
    mass, _ = integrate.quad(density, -surrogate.radius, surrogate.radius)
    assert surrogate.log_mass(rng(1)) == pytest.approx(d * math.log(mass), abs=0.02)
    grid = np.linspace(-surrogate.radius, surrogate.radius, 4001)
    cumulative = density(grid).cumsum()
    draws, share = surrogate.draw(4000, rng(2))
    assert draws.shape == (4000, d)
    assert share > 0.5
    for component in draws.mT:
        assert (
            stats.kstest(component.numpy(), lambda u: np.interp(u, grid, cumulative / cumulative[-1])).pvalue
            > 0.01
        )
    for pair in (draws[1:, 0], draws[1:, -1] if d > 1 else draws[1:, 0]):
        assert abs(np.corrcoef(draws[:-1, 0], pair)[0, 1]) < 5 / math.sqrt(4000)


def test_nothing_lies_beyond_the_radius():
    """A log density that grows outside has no mass there: the density is cut, and no draw leaves."""
    monomials = Monomials(1, 4)
    surrogate = PolynomialDensity(monomials, double([0.0, 0.0, -0.5, 0.0, 0.03]), 1.0)
    value, _ = surrogate.density_and_score(double([[0.0], [4.4], [4.6], [-9.0]]))
    assert value.isfinite().tolist() == [True, True, False, False]
    draws, _ = surrogate.draw(2000, rng(3))
    assert draws.abs().max() < surrogate.radius == 4.5


# --- modes


def test_newton_finds_the_mode_of_a_quadratic_in_two_steps():
    """From anywhere near, the center and precision of a Gaussian are exact, whatever the first precision."""
    precision, center = double([[9.0, 4.0], [4.0, 2.5]]), double([1.0, -2.0])
    calls = []

    def score(theta):
        calls.append(len(theta))
        return -(theta - center) @ precision

    for guess in (torch.eye(2, dtype=torch.float64), precision, 5 * precision):
        calls.clear()
        mode = newton(score, center + double([0.5, 0.5]), guess)
        torch.testing.assert_close(mode.center, center, rtol=0, atol=1e-6)
        torch.testing.assert_close(mode.precision, precision)
        torch.testing.assert_close(mode.factor @ mode.factor.mT, torch.linalg.inv(precision))
        assert mode.last_step < 0.02
        assert sum(calls) <= 6 * 5
    whitened = mode.whitened(score)(double([[1.0, 0.0], [0.3, -2.0]]))
    torch.testing.assert_close(whitened, -double([[1.0, 0.0], [0.3, -2.0]]))
    torch.testing.assert_close(
        mode.distance(mode.center + double([[0.1, 0.2]])),
        double([[0.1, 0.2]]).mv(precision @ double([0.1, 0.2])).sqrt(),
    )


@pytest.mark.parametrize("start", [-3.0, 0.0, 6.0])
def test_newton_on_a_skewed_density(start):
    """The mode of log-gamma variables, log p = k u - exp(u), is log k, found from either side of it."""
    k = double([3.0, 20.0])
    mode = newton(lambda theta: k - theta.exp(), k.log() + start * k.rsqrt(), torch.diag(k))
    torch.testing.assert_close(mode.center, k.log(), rtol=0, atol=0.02)
    torch.testing.assert_close(mode.precision.diagonal(), k, rtol=0.1, atol=0)
    assert mode.last_step < 0.02


def mixture(weight, means, sd):
    def log_density(theta):
        logs = -(theta[:, None] - means).square().sum(dim=2) / (2 * sd**2)
        return (logs + double([1 - weight, weight]).log()).logsumexp(dim=1)

    return scores_of(log_density)


def test_modes_of_a_mixture_are_both_found():
    """Of two normals ten sds apart, from pilots of both, each mode is found once, with its precision."""
    means = double([[-1.0, 0.5], [1.0, -0.5]])
    pilots = means.repeat(8, 1) + 0.3 * normal(16, 2, seed=1)
    modes = find_modes(
        mixture(0.3, means, 0.2), means[0] + 0.1, 20 * torch.eye(2, dtype=torch.float64), pilots
    )
    assert len(modes) == 2
    for mode, mean in zip(modes, means, strict=True):
        torch.testing.assert_close(mode.center, mean, rtol=0, atol=1e-3)
        torch.testing.assert_close(
            mode.precision, 25 * torch.eye(2, dtype=torch.float64), rtol=0.02, atol=0.5
        )


ONE_MODE = {
    "skewed": (lambda theta: 3.0 - theta.exp(), double([1.0, 1.0])),
    "narrower than thought": (lambda theta: -400 * theta, double([0.3, 0.1])),
    "two normals that overlap": (mixture(0.5, double([[-0.3, 0.0], [0.3, 0.0]]), 0.4), double([0.0, 0.0])),
}


@pytest.mark.parametrize("shape", ONE_MODE)
def test_one_mode_is_found_once(shape):
    """A skewed density, a normal 20 times narrower than its first precision, and a flat one, have one mode
    each, pilots far out or none."""
    score, start = ONE_MODE[shape]
    pilots, eye = 3 * normal(16, 2, seed=2), torch.eye(2, dtype=torch.float64)
    for some in (pilots, pilots[:0]):
        (mode,) = find_modes(score, start, eye, some)
        assert mode.last_step < 0.1
        torch.testing.assert_close(
            score(mode.center[None]) @ mode.factor, torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=0.1
        )


def test_a_start_between_two_modes_is_no_mode():
    """Started on the top of the valley of a double well, the search returns the two wells, converged, and
    nothing that is none."""
    score = scores_of(lambda theta: -20 * (theta[:, 0] ** 2 - 0.8) ** 2 - 5 * theta[:, 1] ** 2)
    pilots = 0.9 * normal(32, 2, seed=3)
    for start in (-0.1, 0.0, 0.05):
        modes = find_modes(score, double([start, 0.2]), torch.diag(double([0.5, 10.0])), pilots)
        assert sorted(round(float(mode.center[0]), 2) for mode in modes) == [-0.89, 0.89]
        assert max(mode.last_step for mode in modes) < 0.05


# --- densities on a line


class Line:
    """Items whose summed score is that of a log density: a composition on a line without data."""

    theta_dim, evaluations_of_density = 1, 1

    def __init__(self, log_density):
        self.log_density_of, self.slope = log_density, scores_of(log_density)

    def __len__(self):
        return 1

    def gaussians(self):
        return torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1, 1), 1e12, dtype=torch.float64)

    def score(self, theta, noise, rows):
        return self.slope(theta)[None]

    def log_density(self, theta):
        return self.log_density_of(theta)[None]


SHAPES = {
    "quartic": lambda u: -(u[:, 0] ** 4),
    "skewed": lambda u: 3 * u[:, 0] - u[:, 0].exp(),
    "bimodal": lambda u: torch.logaddexp(-50 * (u[:, 0] - 1) ** 2, -20 * (u[:, 0] + 0.7) ** 2 - 0.4),
    "narrow": lambda u: -((u[:, 0] - 0.3) ** 2) / (2 * 0.001**2),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_density_on_a_line(shape):
    """Density, weights, centers, sd and draws of each shape are those of quadrature, from any interval that
    the search begins with."""
    composed = ComposedScore(Line(SHAPES[shape]), torch.zeros_like, 0.02)
    grid = np.linspace(-9, 5, 2_000_001)
    logs = SHAPES[shape](torch.as_tensor(grid)[:, None]).numpy()
    p = np.exp(logs - logs.max())
    p /= p.sum()
    cumulative = p.cumsum()
    for low, high in ((-1.5, 1.5), (0.1, 0.2)) if shape != "bimodal" else ((-1.5, 1.5),):
        line = AdaptiveGrid(composed, low, high).line(seed=1)
        assert line.weights.sum() == pytest.approx(1, abs=1e-6)
        assert line.explained > 0.97
        draws = line.draw(4000, np.random.default_rng(2))
        assert draws.shape == (4000, 1)
        assert stats.kstest(draws[:, 0].numpy(), lambda u: np.interp(u, grid, cumulative)).pvalue > 0.01
        assert abs(np.corrcoef(draws[1:, 0], draws[:-1, 0])[0, 1]) < 5 / math.sqrt(4000)
        if shape == "bimodal":
            assert line.weights == pytest.approx([p[grid < 0.3].sum(), p[grid > 0.3].sum()], abs=2e-3)
            assert line.centers == pytest.approx([-0.7, 1.0], abs=2e-3)
        else:
            assert line.sd == pytest.approx(math.sqrt(p @ (grid - p @ grid) ** 2), rel=2e-3)
            assert line.centers == pytest.approx([grid[p.argmax()]], abs=0.01 * line.sd)


# --- heights of modes


def test_heights_are_differences_of_the_composed_log_density():
    """Between modes of items with exact densities, with a prior that counts once, heights are those of the
    exact posterior."""
    x = square_data(0.9, 10, seed=3)
    composed = ComposedScore(SquareItems(x), lambda theta: 0.5 - theta, 0.02)
    modes = double([[-0.9], [0.9], [0.1]])
    logs = -((modes[:, 0] - 0.5) ** 2) / 2 - 2 * (x[:, None] - modes[:, 0] ** 2).square().sum(dim=0)
    torch.testing.assert_close(
        relative_log_densities(composed, modes, None, 1), logs - logs[0], rtol=0, atol=1e-6
    )
    assert composed.evaluations == 3 * 7
    x = gaussian_data(double([0.4, -0.9]), 5, 1)
    items, modes = GaussianItems(x), double([[0.0, 0.0], [1.0, -1.0]])
    exact = (
        -(
            (x[:, None] - modes) @ torch.linalg.inv(double([[0.5, 0.6], [0.6, 2.0]])) * (x[:, None] - modes)
        ).sum(dim=(0, 2))
        / 2
    )
    exact = exact - modes.square().sum(dim=1) / 2
    torch.testing.assert_close(
        relative_log_densities(ComposedScore(items, torch.neg, 0.02), modes, None, 1), exact - exact[0]
    )


def test_what_items_share_of_errors_in_heights_is_calibrated():
    """Densities that are tilted in every item are put right by fresh items of both modes, within 0.1 nats for
    ten items."""
    x = square_data(0.9, 10, seed=3)
    modes = double([[-0.9], [0.7]])
    right = relative_log_densities(
        ComposedScore(SquareItems(x), lambda theta: 0.5 - theta, 0.02), modes, None, 1
    )[1]
    composed = ComposedScore(SquareItems(x, tilt=0.5), lambda theta: 0.5 - theta, 0.02)
    assert abs(relative_log_densities(composed, modes, None, 1)[1] - right) > 5
    got = relative_log_densities(composed, modes, fresh_squares(tilt=0.5), 1)[1]
    assert float(got) == pytest.approx(float(right), abs=10 * 4 * 0.05)


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_offsets_of_log_ratios(distance):
    """Log likelihood ratios of two normals have no offset; those that are wrong by a constant have it, within
    their noise."""
    rng, n = np.random.default_rng(1), 4000
    first, last = rng.normal(0, 1, n), rng.normal(distance, 1, n)

    def ratios(x):
        return distance * x - distance**2 / 2

    assert log_ratio_offset(ratios(first), ratios(last)) == 0
    for error in (-1.3, 0.8):
        assert log_ratio_offset(ratios(first) - error, ratios(last) - error) == pytest.approx(
            error, abs=5 * math.sqrt(8 / n) / distance
        )


def test_ratios_are_told_from_a_coin():
    """What ratios of two normals tell is the Jensen-Shannon divergence, in nats a datum; noise tells less
    than nothing."""
    rng, n = np.random.default_rng(1), 20_000
    first, last = (1.5 * rng.normal(mean, 1, n) - 1.5**2 / 2 for mean in (0, 1.5))
    grid = np.linspace(-9, 11, 20_001)
    a, b = (np.exp(-((grid - mean) ** 2) / 2) / np.sqrt(2 * np.pi) for mean in (0, 1.5))
    middle = (a + b) / 2
    divergence = np.trapezoid(a * np.log(a / middle) + b * np.log(b / middle), grid) / 2
    assert evidence(first, last) / (2 * n) == pytest.approx(divergence, rel=0.03)
    assert evidence(rng.normal(0, 0.2, n), rng.normal(0, 0.2, n)) < 0
    assert evidence(np.full(3, 1e3), np.full(3, 1e3)) < -1e3


@pytest.mark.parametrize("wrong", [0.0, 0.03, 0.2])
def test_noise_in_densities_does_not_weigh_modes_that_data_leave_open(wrong):
    """theta^2 is all that items know; with densities that are off by noise, modes at -m and m are as high as
    the prior says."""

    class Noisy(SquareItems):
        def log_density(self, theta):
            return super().log_density(theta) + wrong * torch.sin(40 * self.x[:, None] + 3 * theta[:, 0])

    def fresh(theta, seed):
        yield torch.arange(len(theta)), Noisy(square_data(theta[:, 0], len(theta), seed=seed % 2**31))

    composed = ComposedScore(Noisy(square_data(0.9, 10, seed=3)), lambda theta: 0.5 - theta, 0.02)
    found = relative_log_densities(composed, double([[-0.9], [0.9]]), fresh, 1)
    torch.testing.assert_close(found, double([0.0, 0.9]), rtol=0, atol=1e-3)


def test_ratios_that_tell_nothing_are_left_alone():
    """Data of modes that no data tell apart, and of modes whose ratios are all of one size, have no
    offset."""
    assert log_ratio_offset(np.zeros(100), np.zeros(100)) == 0
    assert log_ratio_offset(np.full(100, -500.0), np.full(100, 500.0)) == 0
    assert math.isfinite(log_ratio_offset(np.full(100, 40.0), np.full(100, 40.0)))
