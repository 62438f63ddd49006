"""The exact posteriors of the benchmarks, against brute force and against the truth."""

import numpy as np
import pytest
from scipy.stats import kstest

from sbi_models.errors import DataError
from sbi_models.simulators.benchmarks import BENCHMARKS, GaussianLinear, GaussianLinearUniform

pytestmark = pytest.mark.xdist_group("benchmark posteriors")  # one process makes what these tests share

SMALL = {
    "gaussian_linear": GaussianLinear(dim=2, prior_variance=0.3, noise_variance=0.1),
    "gaussian_linear_uniform": GaussianLinearUniform(dim=2),
    "gaussian_mixture": BENCHMARKS["gaussian_mixture"],
    "sir": BENCHMARKS["sir"],
    "two_moons": BENCHMARKS["two_moons"],
}
DATA = {
    "gaussian_linear": np.array([0.3, -1.2]),
    "gaussian_linear_uniform": np.array([1.4, -0.9]),  # beyond one edge of the box, near another
    "gaussian_mixture": np.array([9.95, -10.4]),  # where the box cuts most of both components
    "sir": SMALL["sir"].likelihood(np.array([[0.6, 0.15]]), np.random.default_rng(0))["x"][0],
    "two_moons": np.array([0.2, 0.1]),  # the two crescents meet
}


@pytest.fixture(scope="module", params=SMALL)
def case(request):
    """A model of two parameters, its posterior, and a grid of points, cell size and weights from log prior
    plus log likelihood."""
    model, x = SMALL[request.param], DATA[request.param]
    posterior = model.posterior(x)
    draws = posterior.sample(20_000, seed=1)
    size = {"sir": 150, "two_moons": 1000}.get(request.param, 500)
    margin = 0.2 * np.ptp(draws, axis=0)
    low, high = (
        np.maximum(draws.min(axis=0) - margin, model.lower),
        np.minimum(draws.max(axis=0) + margin, model.upper),
    )
    axes = [low[i] + (high[i] - low[i]) * (np.arange(size) + 0.5) / size for i in range(2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    cell = np.prod((high - low) / size)
    log_joint = model.log_prior(points) + model.log_likelihood(points, x)
    density = np.exp(log_joint - log_joint.max())
    return posterior, draws, points, cell, density / (density.sum() * cell)


@pytest.mark.nightly_cases("sir")
def test_log_prob_is_the_joint_density_over_its_integral(case):
    """exp log_prob equals prior times likelihood over its sum on a grid of midpoints, and so integrates to
    one."""
    posterior, _, points, cell, density = case
    exact = np.exp(posterior.log_prob(points))
    assert exact.sum() * cell == pytest.approx(1.0, abs=3e-3)
    np.testing.assert_allclose(exact, density, atol=3e-3 * density.max())


@pytest.mark.nightly_cases("sir")
def test_draws_follow_the_density(case):
    """20 000 draws have the moments of the grid and pass Kolmogorov-Smirnov tests against both of its
    marginals."""
    posterior, draws, points, cell, density = case
    p = density * cell
    for i in range(2):
        axis, marginal = points[:, 0, 0] if i == 0 else points[0, :, 1], p.sum(axis=1 - i)
        edges = np.concatenate([[1.5 * axis[0] - 0.5 * axis[1]], axis + (axis[1] - axis[0]) / 2])
        cumulative = np.concatenate([[0.0], np.cumsum(marginal)])
        assert (
            kstest(draws[:, i], lambda value, edges=edges, c=cumulative: np.interp(value, edges, c)).pvalue
            > 0.001
        )
    mean = (p[..., None] * points).sum(axis=(0, 1))
    sd = np.sqrt((p[..., None] * (points - mean) ** 2).sum(axis=(0, 1)))
    correlation = (p * np.prod((points - mean) / sd, axis=-1)).sum()
    standard = (draws - mean) / sd
    np.testing.assert_allclose(standard.mean(axis=0), 0.0, atol=5 / np.sqrt(len(draws)))
    np.testing.assert_allclose(standard.std(axis=0), 1.0, atol=0.03)
    assert np.prod(standard, axis=1).mean() == pytest.approx(
        correlation, abs=5 * np.prod(standard, axis=1).std() / np.sqrt(len(draws))
    )
    if hasattr(posterior, "mean"):
        np.testing.assert_allclose((posterior.mean - mean) / sd, 0.0, atol=2e-3)
        np.testing.assert_allclose(posterior.sd, sd, rtol=3e-3)


@pytest.mark.nightly_cases("sir")
def test_draws_repeat_with_their_seed(case):
    """The same seed gives the same draws, another one others; none is drawn twice and all have a density."""
    posterior, draws, *_ = case
    np.testing.assert_array_equal(posterior.sample(20_000, seed=1), draws)
    other = posterior.sample(50, seed=2)
    assert not np.isin(other, draws).any()
    assert len(np.unique(draws, axis=0)) == len(draws)
    assert np.isfinite(posterior.log_prob(draws)).all()


@pytest.mark.nightly_cases("gaussian_mixture", "inverse_kinematics")
@pytest.mark.parametrize(
    "name",
    ["gaussian_linear", "gaussian_linear_uniform", "gaussian_mixture", "inverse_kinematics", "two_moons"],
)
def test_the_truth_has_uniform_ranks_in_the_exact_posterior(name):
    """Simulation-based calibration of simulator and posterior together, over 200 simulations of the full
    benchmark."""
    model = BENCHMARKS[name]
    data = model.simulator.sample(200, seed=3)
    settings = {"proposals_per_sample": 20} if name == "inverse_kinematics" else {}
    draws = [model.posterior(x).sample(199, seed=i, **settings) for i, x in enumerate(data["x"])]
    ranks = np.array(
        [(np.sum(d < theta, axis=0) + 0.5) / 200 for d, theta in zip(draws, data["theta"], strict=True)]
    )
    for i in range(ranks.shape[1]):
        assert kstest(ranks[:, i], "uniform").pvalue > 0.0005


def test_ten_dimensions_are_the_product_of_one():
    """The posteriors of the two linear tasks have log densities that differ from log prior + log likelihood
    by one constant."""
    for name in ("gaussian_linear", "gaussian_linear_uniform"):
        model = BENCHMARKS[name]
        x = model.simulator.sample(1, seed=4)["x"]
        theta = model.prior(40, np.random.default_rng(4))["theta"]
        difference = model.posterior(x).log_prob(theta) - model.log_joint(theta, x)
        np.testing.assert_allclose(difference, difference[0], atol=1e-9)


def test_a_truncated_normal_far_beyond_the_box_stays_in_it():
    """For data 30 standard deviations outside, draws and mean are within the box and hug its edge, as an
    exponential would."""
    posterior = GaussianLinearUniform(dim=1, noise_variance=0.01).posterior(np.array([4.0]))
    draws = posterior.sample(2000, seed=5)
    assert draws.max() <= 1.0
    assert 1 - posterior.mean[0] == pytest.approx(0.01 / 3.0, rel=0.01)
    assert 1 - draws.mean() == pytest.approx(0.01 / 3.0, rel=0.15)


def test_the_mixture_keeps_half_of_each_component_inside_the_box():
    """Far from the edges both components keep weight one half; at data outside, the broad one takes all."""
    model = BENCHMARKS["gaussian_mixture"]
    np.testing.assert_allclose(model.posterior(np.zeros(2)).weights, [0.5, 0.5])
    np.testing.assert_allclose(model.posterior(np.array([12.0, 0.0])).weights, [1.0, 0.0], atol=1e-12)


def test_two_moons_are_two_equal_crescents():
    """(theta_1, theta_2) and (-theta_2, -theta_1) have equal density, and each crescent gets half of the
    draws."""
    model = BENCHMARKS["two_moons"]
    posterior = model.posterior(np.array([-0.5, 0.1]))
    draws = posterior.sample(4000, seed=6)
    np.testing.assert_allclose(posterior.log_prob(draws), posterior.log_prob(-draws[:, ::-1]), atol=1e-9)
    assert np.mean(draws.sum(axis=1) > 0) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(4000))


def test_slcp_does_not_see_two_signs():
    """Flipping the sign of theta_3 or theta_4 leaves the log joint as it is, to the bit; flipping theta_5's
    does not."""
    for name in ("slcp", "slcp_distractors"):
        model = BENCHMARKS[name]
        data = model.simulator.sample(20, seed=7)
        log_joint = model.log_joint(data["theta"], data["x"])
        for i, is_symmetric in ((2, True), (3, True), (4, False), (0, False)):
            flipped = data["theta"] * np.where(np.arange(5) == i, -1.0, 1.0)
            assert np.array_equal(model.log_joint(flipped, data["x"]), log_joint) == is_symmetric


def test_what_cannot_have_been_simulated_is_refused():
    """Data that no theta leads to: a place out of the arm's reach, moons beyond the box, and tests beyond the
    number of people."""
    for name, x in (
        ("inverse_kinematics", np.array([0.0, 2.5])),
        ("two_moons", np.array([5.0, 0.0])),
        ("sir", np.full(10, 2000.0)),
    ):
        with pytest.raises(DataError, match="Expected"):
            BENCHMARKS[name].posterior(x).sample(10, seed=0)


def test_the_arm_reaches_the_place_asked_for():
    """Draws of inverse kinematics put the hand at x to rounding, and agree with simulations that land within
    0.01 of it."""
    model = BENCHMARKS["inverse_kinematics"]
    x = np.array([1.0, 1.6])
    draws = model.posterior(x).sample(4000, seed=8)
    np.testing.assert_allclose(model.hand(draws), np.broadcast_to(x, (4000, 2)), atol=1e-12)
    theta = model.prior(2_000_000, np.random.default_rng(8))["theta"]
    near = theta[np.abs(model.hand(theta) - x).max(axis=1) < 0.01]
    assert len(near) > 300
    theta, weights = model.posterior(x).weighted(20_000, seed=9)
    for power in (1, 2):
        expected = weights @ theta**power
        error = np.sqrt((near**power).var(axis=0) / len(near) + weights**2 @ (theta**power - expected) ** 2)
        np.testing.assert_allclose(((near**power).mean(axis=0) - expected) / error, 0.0, atol=4.5)


@pytest.mark.parametrize("x", [(1.0, 1.6), (0.1, 1.97), (1.3, 0.9)])
def test_the_evidence_of_a_place_is_how_often_the_hand_gets_there(x):
    """The evidence from weighted draws is the density of simulated hands at x, counted in a square of side
    0.04."""
    model, n = BENCHMARKS["inverse_kinematics"], 1_000_000
    hands = model.hand(model.prior(n, np.random.default_rng(10))["theta"])
    count = np.sum(np.abs(hands - x).max(axis=1) < 0.02)
    evidence = np.exp(model.posterior(np.array(x)).log_evidence(50_000, seed=10))
    assert evidence * n * 0.04**2 == pytest.approx(count, abs=5 * np.sqrt(count) + 0.02 * count)


def test_moons_are_as_thick_inside_as_outside():
    """The radius of p has mean 0.1 and sd 0.01 under the density: its factor 1/r keeps the outer half of a
    crescent from weighing more."""
    posterior = BENCHMARKS["two_moons"].posterior(np.array([-0.5, 0.1]))
    axis = np.linspace(-1, 1, 4001)
    theta = posterior.sample(2000, seed=11)
    theta = theta[theta.sum(axis=1) > 0]
    rows, columns = (
        axis[(axis > theta[:, i].min() - 0.05) & (axis < theta[:, i].max() + 0.05)] for i in range(2)
    )
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    p = np.exp(posterior.log_prob(points))
    p /= p.sum()
    radius = np.hypot(
        points.sum(axis=-1) / np.sqrt(2) - 0.5 - 0.25, 0.1 - (points[..., 1] - points[..., 0]) / np.sqrt(2)
    )
    mean = (p * radius).sum()
    assert mean == pytest.approx(0.1, abs=1e-4)
    assert np.sqrt((p * (radius - mean) ** 2).sum()) == pytest.approx(0.01, abs=1e-4)
